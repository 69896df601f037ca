"""The sandbox: a catalogue, an issuer, seven tenants with a year behind them, and a month of a mail server's sends."""

"""Invitations: the link by which somebody becomes a member."""

from ..models import Invite
from .claims import Claim, Purpose, sign_claim


def invitation_url(base: str, key: bytes, invite: Invite) -> str:
    """Where an invitation is accepted: a page of the partner's, which hands the token back."""
    claim = Claim(invite.id, invite.link_number)
    return f"{base}/invitations/{sign_claim(key, Purpose.INVITATION, claim, invite.expires_at)}"

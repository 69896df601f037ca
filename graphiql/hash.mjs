// Writes the hash over the inputs of the build next to its result; README.md has the rule.
import { createHash } from 'node:crypto';
import { readdirSync, readFileSync, writeFileSync } from 'node:fs';

process.chdir(import.meta.dirname);

const sha256 = (bytes) => createHash('sha256').update(bytes).digest('hex');

const inputs = [
    '.npmrc',
    'hash.mjs',
    'index.html',
    'package-lock.json',
    'package.json',
    'vite.config.js',
    ...readdirSync('src', { recursive: true, withFileTypes: true })
        .filter((entry) => entry.isFile())
        .map((entry) => `${entry.parentPath}/${entry.name}`),
].sort();

const lines = inputs.map((path) => `${path}\n${sha256(readFileSync(path))}\n`);
writeFileSync('../src/http/graphiql/inputs.sha256', `${sha256(lines.join(''))}\n`);

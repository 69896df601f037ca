import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import license from 'rollup-plugin-license';
import { defineConfig } from 'vite';

const here = (path) => fileURLToPath(new URL(path, import.meta.url));
const outDir = here('../src/http/graphiql');

// The style sheet of GraphiQL carries 34 font files as data URLs; the page uses the fonts of the system.
const withoutFonts = {
  name: 'without-fonts',
  enforce: 'pre',
  transform(code, id) {
    if (id.endsWith('/graphiql/dist/style.css')) {
      return { code: code.replace(/@font-face\s*\{[^}]*\}/g, ''), map: null };
    }
  },
};

// These packages are published without the text of their licence, each by the authors of the other.
const siblings = {
  '@graphiql/plugin-doc-explorer': 'graphiql',
  '@graphiql/plugin-history': 'graphiql',
  'react-compiler-runtime': 'react',
  'react-remove-scroll-bar': 'react-remove-scroll',
  'toggle-selection': 'copy-to-clipboard',
};

function licences(dependencies) {
  const groups = new Map();
  for (const { name, version, license: kind, licenseText } of dependencies) {
    const text = licenseText ?? readFileSync(here(`node_modules/${siblings[name]}/LICENSE`), 'utf8');
    const plain = text.replace(/\r\n/g, '\n').replace(/[ \t]+$/gm, '').trim();
    groups.set(plain, [...(groups.get(plain) ?? []), `${name} ${version} (${kind})`]);
  }
  const rule = '='.repeat(80);
  const parts = [...groups].map(([text, names]) => `${names.sort().join('\n')}\n\n${text}\n`).sort();
  return `The query editor in this directory contains these packages.\n${rule}\n${parts.join(`${rule}\n`)}`;
}

export default defineConfig({
  base: '/graphiql/',
  esbuild: { jsx: 'automatic', legalComments: 'none' },
  plugins: [withoutFonts],
  resolve: {
    // The original asks the server of an image in a response for that image: a request to another host.
    alias: [{ find: /^.*\/image-preview\.js$/, replacement: here('src/no-image-preview.js') }],
  },
  build: {
    outDir,
    emptyOutDir: true,
    modulePreload: false,
    chunkSizeWarningLimit: 1500,
    rollupOptions: {
      // Many packages mark their modules for servers that render React; that means nothing here.
      onwarn: (warning, warn) => warning.code === 'MODULE_LEVEL_DIRECTIVE' || warn(warning),
      output: {
        inlineDynamicImports: true,
        entryFileNames: 'graphiql.js',
        assetFileNames: 'graphiql[extname]',
      },
      plugins: [
        license({
          thirdParty: {
            multipleVersions: true,
            output: { file: `${outDir}/LICENSES.txt`, template: licences },
          },
        }),
      ],
    },
  },
});

import { readFileSync } from 'node:fs';
import { fileURLToPath } from 'node:url';
import { defineConfig } from 'vitest/config';

const at = (path: string) => fileURLToPath(new URL(path, import.meta.url));
const { exports } = JSON.parse(readFileSync(at('package.json'), 'utf8')) as {
  exports: Record<string, string | { default: string }>;
};

// Tests import the package by its public names, as a user does, and get the sources: a change is tested without a build.
const alias = Object.entries(exports).flatMap(([name, target]) =>
  typeof target === 'string'
    ? []
    : {
        find: new RegExp(`^attested${name.slice(1)}$`),
        replacement: at(target.default.replace('./dist/', 'src/').replace(/\.js$/, '.ts')),
      },
);

export default defineConfig({
  resolve: { alias },
  test: {
    include: ['test/**/*.test.ts', 'peers/test/**/*.test.ts'],
    pool: 'forks',
    // no test finds the keychain of whoever runs it; those that need one start their own
    env: { DBUS_SESSION_BUS_ADDRESS: 'unix:path=/nonexistent/bus' },
    testTimeout: 20_000,
    hookTimeout: 20_000,
  },
});

/** What a page has to load: the entry for browsers, bundled and compressed, within its budget and without Node. */

import { gzipSync } from "node:zlib";
import { build } from "esbuild";
import { expect, test } from "vitest";

// The goal is 45 kB. Each field of the contract takes its part, since descriptors hardly compress: to reach it, the
// services of unary calls are to be loaded on demand.
const BUDGET_BYTES = 48 * 1024;

test("the entry for browsers is within 48 KiB, and has nothing of Node in it", async () => {
  const { outputFiles, metafile } = await build({
    entryPoints: ["src/index.ts"],
    bundle: true,
    minify: true,
    format: "esm",
    // Anything that only Node has fails to be found.
    platform: "browser",
    target: "es2022",
    write: false,
    metafile: true,
  });
  const inputs = Object.keys(metafile.inputs);
  expect(inputs.filter((path) => path.includes("connectrpc"))).toEqual([]);
  const size = gzipSync(outputFiles[0]?.contents ?? "", { level: 9 }).length;
  expect(size).toBeGreaterThan(10_000);
  expect(size).toBeLessThan(BUDGET_BYTES);
  process.stdout.write(`the entry for browsers: ${size} bytes, compressed\n`);
});

import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    // Tests of the real server start processes: `vitest run --project integration`.
    projects: [
      { test: { name: "unit", include: ["tests/*.test.{ts,tsx}"], testTimeout: 30_000 } },
      {
        test: {
          name: "integration",
          include: ["tests/integration/*.test.ts"],
          testTimeout: 120_000,
          hookTimeout: 120_000,
          fileParallelism: false,
        },
      },
    ],
  },
});

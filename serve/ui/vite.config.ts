import { fileURLToPath } from "node:url";
import react from "@vitejs/plugin-react";
import { defineConfig } from "vite";

const here = (path: string) => fileURLToPath(new URL(path, import.meta.url));

export default defineConfig({
  base: "/ui/",
  plugins: [react()],
  // The DICOM loader reaches it by way of an XML export that nothing here calls; it breaks at import in a browser.
  resolve: { alias: { xmlbuilder2: here("./stub/xmlbuilder2.ts") } },
  worker: { format: "es" },
  build: {
    target: "es2022",
    manifest: "manifest.json",
    modulePreload: { polyfill: false },
    assetsInlineLimit: 0, // the content security policy allows no data: URI
    chunkSizeWarningLimit: 5000, // the viewer, which is loaded with the first film
  },
});

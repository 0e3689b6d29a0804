// Reads dotenv texts as npm's dotenv does, and as wrangler does: its own copy is cut out of its bundle. Takes a JSON list of texts
// on stdin; prints for each what npm's reads, what `wrangler secret bulk` reads, and what `wrangler dev` makes of it.
const fs = require("node:fs");
const path = require("node:path");
const modules = process.argv[2];
const npm = require(path.join(modules, "dotenv"));
const bundle = fs.readFileSync(path.join(modules, "wrangler/wrangler-dist/cli.js"), "utf8");

function copy(name, shims) {
  const begin = new RegExp(`^// \\S*/node_modules/${name}/lib/main\\.js\nvar \\w+ = __commonJS\\(`, "m").exec(bundle);
  const rest = bundle.slice(begin.index + begin[0].length);
  const source = rest.slice(0, rest.indexOf("\n});") + 2);
  const factories = new Function(...Object.keys(shims), `return ${source};`)(...Object.values(shims));
  const module = { exports: {} };
  Object.values(factories)[0](module.exports, module);
  return module.exports;
}

const shims = { init_import_meta_url() {}, __require: require, require_package: () => ({ version: "" }), __name: (value) => value };
const { parse } = copy("dotenv", shims);
const { expand } = copy("dotenv-expand", shims);
const texts = JSON.parse(fs.readFileSync(0, "utf8"));
console.log(
  JSON.stringify(texts.map((text) => [npm.parse(text), parse(text), expand({ parsed: { ...parse(text) }, processEnv: {} }).parsed])),
);

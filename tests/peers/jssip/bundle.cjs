// Prints JsSIP and what it needs as one script for a page, which has it as JsSIP: node bundle.cjs
"use strict";
const { readFileSync } = require("fs");
const { createRequire } = require("module");
const { dirname, join } = require("path");

const modules = new Map(); // file -> [number, text of its function]

function browserFile(file) { // debug has another main for browsers
  const folder = join(dirname(file), "..");
  return file.includes("/debug/src/index.js") ? join(folder, "src", "browser.js") : file;
}

function add(file) {
  if (modules.has(file)) return modules.get(file)[0];
  const number = modules.size, entry = [number, ""];
  modules.set(file, entry);
  const find = createRequire(file);
  const text = file.endsWith(".json") ? `module.exports = ${readFileSync(file, "utf8")};` : readFileSync(file, "utf8");
  entry[1] = text.replace(/\brequire\((["'])([^"']+)\1\)/g, (_, __, name) =>
    `require(${add(browserFile(find.resolve(name === "events" ? "events/" : name)))})`);
  return number;
}

const first = add(createRequire(join(__dirname, "package.json")).resolve("jssip"));
const functions = [...modules.values()].map(([, text]) => `function (module, exports, require) {${text}\n}`);
process.stdout.write(`const process = { env: {} };
const JsSIP = ((all) => {
  const made = new Map();
  const require = (number) => {
    if (!made.has(number)) {
      const module = { exports: {} };
      made.set(number, module);
      all[number](module, module.exports, require);
    }
    return made.get(number).exports;
  };
  return require(${first});
})([${functions.join(",\n")}]);
`);

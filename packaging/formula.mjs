// Prints the Homebrew formula of a release.
//
//   node packaging/formula.mjs SHA256SUMS > flotilla.rb
import { readFileSync } from "node:fs";
import { fail, project, targets } from "./project.mjs";

const [file] = process.argv.slice(2);
if (!file) fail("usage: node packaging/formula.mjs SHA256SUMS");
const { version, description, license, repository } = project();
const sums = new Map(readFileSync(file, "utf8").trimEnd().split("\n").map((line) => line.split("  ").reverse()));

const archive = (os, cpu) => {
  const { target } = targets.find((one) => one.os === os && one.cpu === cpu);
  const name = `flotilla-${version}-${target}.tar.gz`;
  const sum = sums.get(name) ?? fail(`${file} has no ${name}`);
  return `      url "${repository}/releases/download/v${version}/${name}"\n      sha256 "${sum}"\n`;
};
const system = (name, os) =>
  `  on_${name} do\n    on_arm do\n${archive(os, "arm64")}    end\n    on_intel do\n${archive(os, "x64")}    end\n  end\n`;
// Homebrew wants no full stop at the end, at most 80 characters and no article at the beginning.
const about = description.split(":")[0].replace(/^An? /, "");
const licenses = license.split(" OR ").map((one) => `"${one}"`).join(", ");
process.stdout.write(`class Flotilla < Formula
  desc "${about[0].toUpperCase()}${about.slice(1)}"
  homepage "${repository}"
  version "${version}"
  license any_of: [${licenses}]

${system("macos", "darwin")}
${system("linux", "linux")}
  depends_on "node"

  def install
    bin.install "flotilla"
    bash_completion.install "completions/flotilla.bash" => "flotilla"
    zsh_completion.install "completions/_flotilla"
    fish_completion.install "completions/flotilla.fish"
    man1.install Dir["man/*.1"]
  end

  test do
    assert_match version.to_s, shell_output("#{bin}/flotilla --version")
    system bin/"flotilla", "init", testpath/"fleet"
    assert_path_exists testpath/"fleet/fleet.yaml"
  end
end
`);

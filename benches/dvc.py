"""Runs the same experiment under DVC and caco, edit by edit, and compares which stages each tool reruns.

    pip install dvc                                    # in a separate environment, first on PATH
    cargo build --release
    python benches/dvc.py                              # prints the table of docs/coming-from.md

Uses two copies of pipelines/examples/reviews. Before every edit both are up to date. `needed` is the set of stages
whose results differ when rerun after the edit, or are missing. A tool is wrong if it runs fewer stages, and wasteful
if it runs more.
"""

import json
import os
import pathlib
import shutil
import subprocess
import tempfile

HERE = pathlib.Path(__file__).resolve().parent.parent
CACO = pathlib.Path(os.environ.get("CACO", HERE / "target/release/caco"))
STAGES = ["prepare", "featurize", "train", "evaluate"]


def run(*command, cwd):
    done = subprocess.run([str(c) for c in command], cwd=cwd, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{command} failed:\n{done.stdout}{done.stderr}")
    return done


class Dvc:
    name = "DVC"

    def __init__(self, folder):
        self.folder = folder
        run("git", "init", "-q", cwd=folder)
        run("dvc", "init", "-q", cwd=folder)

    def reproduce(self):
        said = run("dvc", "repro", cwd=self.folder).stdout
        return [stage for stage in STAGES if f"Running stage '{stage}'" in said]

    def parameter(self, stage, name, value):
        file = self.folder / "params.json"
        settings = json.loads(file.read_text())
        settings.setdefault(stage, {})[name] = value
        file.write_text(json.dumps(settings))

    def comment(self):
        file = self.folder / "dvc.yaml"
        file.write_text("# A comment.\n" + file.read_text())

    def delete(self):
        (self.folder / "model.json").unlink()


class Caco:
    name = "caco"

    def __init__(self, folder):
        self.folder = folder

    def reproduce(self):
        said = run(CACO, "run", "reviews.ron", "--json", cwd=self.folder).stdout
        ran = {stage["stage"] for stage in json.loads(said)["ran"]}
        return [stage for stage in STAGES if stage in ran]

    def parameter(self, stage, name, value):
        if stage not in STAGES:
            # Parameters are declared at their stage; a parameter of no stage goes into a file that no stage declares.
            return Dvc.parameter(self, stage, name, value)
        file = self.folder / "reviews.ron"
        lines = file.read_text().split("\n")
        at = next(i for i, line in enumerate(lines) if f'parameters: {{"{stage}"' in line)
        before, after = lines[at].split(f'"{name}": ', 1)
        end = min(after.index(c) for c in ",}" if c in after)
        lines[at] = f'{before}"{name}": {value}{after[end:]}'
        file.write_text("\n".join(lines))

    def comment(self):
        file = self.folder / "reviews.ron"
        file.write_text("// A comment.\n" + file.read_text())

    def delete(self):
        shown = json.loads(run(CACO, "show", "train", "--json", cwd=self.folder).stdout)
        digest = next(o["blake3"] for o in shown["result"]["outputs"] if o["name"] == "model.json")
        (found,) = [p for p in (self.folder / "cache/objects").rglob("*") if p.is_file() and "".join(p.parts[-2:]) == digest]
        found.unlink()


def append(name, text):
    def edit(tool):
        with open(tool.folder / name, "a") as file:
            file.write(text)

    return edit


def replace(name, before, after):
    def edit(tool):
        file = tool.folder / name
        text = file.read_text()
        assert before in text, (name, before)
        file.write_text(text.replace(before, after))

    return edit


def rename(tool):
    moved = tool.folder.with_name(tool.folder.name + "-moved")
    tool.folder.rename(moved)
    tool.folder = moved


def back_and_forth(tool):
    tool.parameter("train", "epochs", 3)
    tool.reproduce()
    tool.parameter("train", "epochs", 10)


EDITS = [
    ("a parameter that `train` uses", lambda tool: tool.parameter("train", "epochs", 10), ["train", "evaluate"]),
    ("a parameter that no stage uses", lambda tool: tool.parameter("unused", "x", 1), []),
    ("the script of `train`", replace("src/train.py", "bias -= settings", "bias -= 2 * settings"), ["train", "evaluate"]),
    ("a comment in the script of `train`", append("src/train.py", "# A comment.\n"), ["train"]),
    ("a module that featurize.py imports", replace("src/text.py", '"had"}', '"had", "very", "quite", "some"}'), ["featurize", "train", "evaluate"]),
    ("a row of data", append("data/reviews.csv", "1,a lovely fresh film with great music\n"), STAGES),
    ("`touch` on the data", lambda tool: (tool.folder / "data/reviews.csv").touch(), []),
    ("a comment in the pipeline file", lambda tool: tool.comment(), []),
    ("the project's folder renamed", rename, []),
    ("the model deleted where the tool keeps it", lambda tool: tool.delete(), ["train"]),
    ("a parameter changed, run, and changed back", back_and_forth, []),
]


def words(ran, needed, tool):
    text = ", ".join(ran) or "nothing"
    if set(needed) - set(ran):
        # Deleting one of two copies loses nothing.
        return f"{text} (restored)" if tool.name == "DVC" and "deleted" in tool.edit else f"**{text}: stale**"
    return f"{text} (more than needed)" if set(ran) - set(needed) else text


def main():
    with tempfile.TemporaryDirectory() as folder:
        tools = []
        for kind in [Dvc, Caco]:
            place = pathlib.Path(folder) / kind.__name__.lower()
            shutil.copytree(HERE / "pipelines/examples/reviews", place, ignore=shutil.ignore_patterns("cache"))
            tools.append(kind(place))
            assert tools[-1].reproduce() == STAGES
        version = run("dvc", "--version", cwd=folder).stdout.strip()
        print(f"| edit | needed | DVC {version} | caco |\n| --- | --- | --- | --- |")
        for edit, apply, needed in EDITS:
            cells = []
            for tool in tools:
                tool.edit = edit
                apply(tool)
                cells.append(words(tool.reproduce(), needed, tool))
            print(f"| {edit} | {', '.join(needed) or 'nothing'} | {cells[0]} | {cells[1]} |")


if __name__ == "__main__":
    main()

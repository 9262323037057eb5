"""Tab completion: what may stand at the end of a command line. No torch, no Hydra: a Tab is answered in a tenth of a
second.

The shells' scripts are a few lines that hand the words over; what fits is found here, the same for all of them.
"""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from gradcam_bench.errors import UserError, unknown
from gradcam_bench.flags import DESCRIPTIONS, FLAGS, OVERRIDDEN
from gradcam_bench.labels import CONF, names

PLURALS = ("methods", "metrics", "datasets", "models", "presets", "experiments")
LISTS = ("method", "metric", "preset")
GROUPS = (*LISTS, "dataset", "model", "experiment")
ON_RUNS = ("score", "report", "seeds", "compare", "diff", "multiverse", "gate")
FEW = {  # settings with few values
    "device": ("auto", "cpu", "cuda", "mps"),
    "precision": ("float32", "bf16"),
    "store": ("grid", "all", "none"),
    "on_error": ("skip", "raise"),
    "stages": ("[explain]", "[explain,score]", "[explain,score,report]"),
}
Found = list[str]


def candidates(words: Sequence[str], current: str) -> Found:
    """Whole words that may stand where `current` does, after `words` (without the program's name). Empty where any
    file may. A quote that opens `current` is kept."""
    quote = current[:1] if current[:1] in ("'", '"') else ""
    found = _candidates(words, current[len(quote) :])
    return [f"{quote}{word}" for word in found if word.startswith(current[len(quote) :])]


def _candidates(words: Sequence[str], current: str) -> Iterable[str]:
    if not words:
        return DESCRIPTIONS
    verb = words[0]
    if verb not in DESCRIPTIONS:
        return ()
    if current.startswith("-"):
        return [*(flag for flag, _ in FLAGS[verb]), "--debug", "--help"]
    if words[-1] in ("--method", "--methods", "--metrics"):
        return _appended(current, names(words[-1].strip("-").removesuffix("s")))
    if words[-1] in [flag for flag, settings in FLAGS[verb] if settings.get("action") != "store_true"]:
        return _of_flag(words[-1])
    if verb == "list":
        return PLURALS
    if verb == "completion":
        return SCRIPTS
    if verb in ON_RUNS and "=" not in current:
        return [*_runs(), *(_settings(words, current) if verb == "score" else ())]
    if verb == "reproduce" and len(words) == 1:
        return (name.removeprefix("paper/") for name in names("experiment") if name.startswith("paper/"))
    return _settings(words, current) if verb in OVERRIDDEN else ()


def _of_flag(flag: str) -> Iterable[str]:
    values = {"--by": ("size", "class_name"), "--format": ("irn", "psa", "sec", "png", "coco-rle")}
    return _runs() if flag == "--validation" else values.get(flag, names("multiverse") if flag == "--grid" else ())


def _runs() -> list[str]:
    """Folders of runs, results/EXPERIMENT/NAME, the newest first."""
    found = [*Path("results").glob("*/*/config.yaml"), *Path("results").glob("*/*/*/config.yaml")]
    return [str(path.parent) for path in sorted(found, key=lambda path: -path.stat().st_mtime)]


def _settings(words: Sequence[str], current: str) -> Iterable[str]:
    """KEY= and KEY=VALUE."""
    key, given, value = current.partition("=")
    return [f"{key}={one}" for one in _values(key, value)] if given else _keys(words)


def _values(key: str, value: str) -> Iterable[str]:
    from gradcam_bench.choices import AXES, VIEW_CHOICES

    group, _, name = key.partition(".")
    if key in LISTS:
        return _appended(value, [*names(key), *(["all"] if key == "method" else [])], "[", "]")
    if key in GROUPS:
        return (name for name in names(key) if not name.startswith("paper/"))
    if group == "protocol" and name in AXES:
        return map(str, AXES[name].valid) if AXES[name].kind == "name" else ()
    if group == "view":
        return VIEW_CHOICES.get(name, ())
    return FEW.get(key, ("DEFAULT", "none") if key == "model.weights" else ())


def _keys(words: Sequence[str]) -> list[str]:
    """Settings of conf/config.yaml, and of the data set and the model that the words choose."""
    config = _yaml("config")
    plain = [f"{key}=" for key, value in config.items() if not isinstance(value, dict) and key != "defaults"]
    nested = [f"{key}.{name}=" for key, value in config.items() if isinstance(value, dict) for name in value]
    chosen = dict(word.strip("'\"").partition("=")[::2] for word in words)
    for group in ("dataset", "model"):
        label = chosen.get(group) or {"dataset": "scenes", "model": "scenes_gap"}[group]
        nested += [f"{group}.{name}=" for name in _yaml(f"{group}/{label}") if not name.startswith("_")]
    return [*(f"{group}=" for group in GROUPS), *plain, *nested]


@functools.cache
def _yaml(name: str) -> dict[str, Any]:
    import yaml

    path = CONF / f"{name}.yaml"
    return (yaml.safe_load(path.read_text(encoding="utf-8")) or {}) if path.is_file() else {}


def _appended(value: str, labels: Iterable[str], opening: str = "", closing: str = "") -> list[str]:
    """The list so far with each label as its last. Of a label that is whole, or the only one, the closed list too: so
    a shell does not take the only candidate for the end of the word."""
    if "]" in value:
        return [value]
    head, comma, last = value.rpartition(",") if "," in value else ("", "", value.removeprefix(opening))
    before, there = (head + comma) or opening, head.removeprefix("[").split(",")
    found = [label for label in labels if label not in there and label.startswith(last)]
    whole = [label for label in found if closing and (label == last or len(found) == 1)]
    return [*(f"{before}{label}" for label in found), *(f"{before}{label}{closing}" for label in whole)]


def answer(words: Sequence[str]) -> int:
    """Prints the candidates, a line each. words: the shell's kind of split (`line`: one argument with the whole line up
    to the cursor, as bash gives it; `words`: the current word, then those before it)."""
    kind, *rest = words
    if kind == "words":
        current, *before = rest
        print("\n".join(candidates(before, current)))
        return 0
    before = rest[0].split()[1:]
    current = "" if not rest[0] or rest[0][-1].isspace() else before.pop()
    whole = candidates(before, current)
    quoted = current[:1] in ("'", '"')
    cut = 1 if quoted else max(current.rfind(mark) for mark in "=:") + 1  # behind these bash takes a word to begin
    print("\n".join(word[cut:] for word in whole))
    return 0


BASH = """\
# gradcam-bench: tab completion for bash
_gradcam_bench() {
  local IFS=$'\\n'
  COMPREPLY=($(gradcam-bench _complete line "${COMP_LINE:0:COMP_POINT}" 2>/dev/null))
  case ${COMPREPLY[0]-} in *= | *[\\[,]*) compopt -o nospace 2>/dev/null ;; esac
}
complete -o default -F _gradcam_bench gradcam-bench
"""
ZSH = """\
#compdef gradcam-bench
# gradcam-bench: tab completion for zsh
_gradcam_bench() {
  local -a found open
  found=("${(@f)$(gradcam-bench _complete words "${(Q)PREFIX}" "${(@Q)words[2,CURRENT-1]}" 2>/dev/null)}")
  found=("${(@)found:#}")
  if (( $#found )); then
    open=("${(@M)found:#*(=|\\[*)}")  # the word may go on
    compadd -S '' -V open -- "${(@)open}"
    compadd -V found -- "${(@)found:|open}"
  else
    compset -P '*='
    _files
  fi
}
if [[ $funcstack[1] == _gradcam-bench ]]; then  # autoloaded from a folder of $fpath
  _gradcam_bench
else
  (( $+functions[compdef] )) || { autoload -Uz compinit && compinit }
  compdef _gradcam_bench gradcam-bench
fi
"""
FISH = """\
# gradcam-bench: tab completion for fish
function __gradcam_bench
  set -l words (commandline -opc)
  set -l current (string trim --left --chars '\\'"' -- (commandline -ct) | string replace --all '\\\\' '')
  if not gradcam-bench _complete words "$current" $words[2..-1] 2>/dev/null | string match --regex '.+'
    set -l key (string match --regex '^[^=]*=' -- $current)
    string replace --regex '^' "$key" -- (__fish_complete_path (string replace --regex '^[^=]*=' '' -- "$current"))
  end
end
complete -c gradcam-bench -f -a '(__gradcam_bench)'
"""
SCRIPTS = {"bash": BASH, "zsh": ZSH, "fish": FISH}


def completion(shell: str, install: bool) -> int:
    """Prints the shell's script; install: writes it under the user's home, where new shells find it, and says where."""
    if shell not in SCRIPTS:
        raise unknown("shell", shell, SCRIPTS)
    if not install:
        print(SCRIPTS[shell], end="")
        return 0
    config = Path(os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config")
    folder = config / ("fish/completions" if shell == "fish" else "gradcam-bench")
    script = folder / ("gradcam-bench.fish" if shell == "fish" else f"completion.{shell}")
    start = None if shell == "fish" else Path.home() / f".{shell}rc"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        script.write_text(SCRIPTS[shell], encoding="utf-8")
        line = f"[ -f '{script}' ] && . '{script}'  # gradcam-bench"
        if start is not None and line not in (start.read_text(encoding="utf-8") if start.is_file() else ""):
            with start.open("a", encoding="utf-8") as file:
                file.write(f"\n{line}\n")
    except OSError as error:
        raise UserError(f"{error.filename}: {error.strerror}; print the script without --install instead") from None
    print(f"wrote {script}{f', and a line in {start} that reads it' if start else ''}; open a new shell")
    return 0

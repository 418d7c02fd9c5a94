"""The helper that `mount -t forebay` and /etc/fstab call: `mount.forebay DATASET@REVISION DIR -o OPTIONS`.

Made known to mount(8) by a link: ln -s "$(command -v mount.forebay)" /sbin/mount.forebay
"""

from __future__ import annotations

import os
import sys

_FLAGS = {
    "allow_other": "--allow-other",
    "follow": "--follow",
    "no_passthrough": "--no-passthrough",
    "small_files": "--small-files",
}
_VALUES = {name: f"--{name.replace('_', '-')}" for name in ("uid", "gid", "follow_seconds")}
_VALUES |= {name: f"--{name.replace('_', '-')}" for name in ("read_ahead", "prefetch", "read_timeout")}
_IGNORED = {"ro", "rw", "nosuid", "suid", "nodev", "dev", "exec", "noexec", "auto", "noauto", "user", "nouser", "users"}
_IGNORED |= {"defaults", "_netdev", "nofail", "atime", "noatime", "relatime"}
"""What mount(8) says to any helper; a mount is always read-only, without devices and set-uid programs."""


def plan_call(arguments: list[str]) -> tuple[list[str], dict[str, str]]:
    """Return the arguments of `ds` and the environment that a call of the helper means; pure.

    Args:
        arguments: `SPEC DIR [-sfnv] [-N NAMESPACE] [-t TYPE] [-o OPTIONS]`.

    Raises:
        ValueError: If an option is not known.
    """
    places: list[str] = []
    command, environment = ["mount"], dict[str, str]()
    words = iter(arguments)
    for word in words:
        if word == "-o":
            _take_options(next(words, ""), command, environment)
        elif word in ("-N", "-t"):
            next(words, "")
        elif not word.startswith("-"):
            places.append(word)
    if len(places) != 2:
        raise ValueError("expected: mount.forebay DATASET[@REVISION][/DIRECTORY] DIR [-o OPTIONS]")
    return [*command, "--background", "--repair", *places], environment


def _take_options(text: str, command: list[str], environment: dict[str, str]) -> None:
    for option in filter(None, text.split(",")):
        name, _, value = option.partition("=")
        if name in _FLAGS:
            command.append(_FLAGS[name])
        elif name in _VALUES:
            command += [_VALUES[name], value]
        elif name == "home":
            environment["FOREBAY_HOME"] = value
        elif name == "env":
            key, _, setting = value.partition(":")
            environment[key] = setting
        elif name not in _IGNORED and not name.startswith("x-"):
            raise ValueError(f"option {name} is not known; known are: {', '.join([*_FLAGS, *_VALUES, 'home', 'env'])}")


def main() -> None:
    """Mount as mount(8) asks; its exit codes are 0, 1 (wrong call) and 32 (mount failed)."""
    try:
        command, environment = plan_call(sys.argv[1:])
    except ValueError as error:
        sys.stderr.write(f"mount.forebay: {error}\n")
        sys.exit(1)
    os.environ.update(environment)
    if "HOME" not in os.environ:  # mount(8) as root from a boot script may have none
        os.environ["HOME"] = "/root"
    from ds.application import run

    sys.exit(32 if run(command) else 0)


if __name__ == "__main__":
    main()

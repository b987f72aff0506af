"""Argparse in the words of this project: errors from the catalogue, suggestions, and a usage of one line."""

from __future__ import annotations

import argparse
import re
from typing import Any, NoReturn

from gpusched.errors import UsageError, did_you_mean

#: words of other tools → the command that does it here
SYNONYMS = {
    "delete": "forget", "describe": "show", "gpus": "devices", "init": "demo", "kill": "cancel", "list": "status",
    "log": "logs", "ls": "status", "pause": "hold", "prune": "forget", "ps": "status", "remove": "forget",
    "rerun": "retry", "restart": "retry", "rm": "forget", "serve": "daemon", "server": "daemon", "start": "submit",
    "stop": "cancel", "tail": "logs", "watch": "top",
}  # fmt: skip


class WrongUsage(UsageError):
    problem = "{why}"
    remedy = "try `{command} --help`"

    @property
    def usage(self) -> str:
        """The usage of the command, in one line."""
        return str(self.details["usage"])


class OneAtATime(UsageError):
    problem = "{one} does not go with {other}"
    remedy = "give one of them"


class Parser(argparse.ArgumentParser):
    """Argparse, with errors from the catalogue and suggestions of our own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.suggest_on_error = False  # from Python 3.15 on it would add its own to the texts that are read here

    def error(self, message: str) -> NoReturn:
        why = message
        if match := re.match(r"unrecognized arguments: (--?\w[\w-]*)", message):
            why = f"there is no option {match[1]}{did_you_mean(match[1], self._option_string_actions)}"
        elif match := re.match(r"argument COMMAND: invalid choice: '(.*?)' \(choose from (.*)\)", message):
            synonym = SYNONYMS.get(match[1])
            commands = re.findall(r"[\w-]+", match[2])  # some versions of argparse quote them
            near = f"; did you mean {synonym!r}?" if synonym else did_you_mean(match[1], commands)
            why = f"there is no command {match[1]!r}{near}"
        elif match := re.match(r"(argument \S+ invalid choice: '(.*?)') \(choose from (.*)\)", message):
            choices = re.findall(r"[\w-]+", match[3])
            why = f"{match[1]} (choose from {', '.join(choices)}){did_you_mean(match[2], choices)}"
        raise WrongUsage(why=why, command=self.prog, usage=self.brief_usage())

    def brief_usage(self) -> str:
        """Its positional arguments and required options: `gpusched train [OPTIONS] -o DIR SYMBOL START END`."""
        parts = [self.prog, "[OPTIONS]"]
        for action in sorted(self._actions, key=lambda action: not action.option_strings):
            name = str(action.metavar or action.dest.upper())
            if action.option_strings:
                parts += [f"{action.option_strings[0]} {name}"] if action.required else []
            elif action.dest == "symbols_file":
                parts.append(f"{name}|--symbols A,B,…")
            else:
                parts.append({"?": f"[{name}]", "*": f"[{name} …]", "+": f"{name} …"}.get(str(action.nargs), name))
        if any(action.dest == "command_line" for action in self._actions):
            parts.append("[-- PROGRAM …]")
        return " ".join(parts)

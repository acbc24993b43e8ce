"""`heavy`: the command. Each subcommand lives in a module of its own."""

from __future__ import annotations

import sys
from typing import Final

import click

from heavy import __version__
from heavy.cli import exits
from heavy.cli.lazy import Entry, LazyGroup
from heavy.core.errors import HeavyError

ASK, LOOK, MANY, SERVE = "Ask", "Look", "Many questions", "Serve"

COMMANDS: Final = {
    "ask": Entry("heavy.cli.ask:ask", "Ask a question and watch it being answered.", ASK),
    "demo": Entry("heavy.cli.demo:demo", "See a heavy run on this machine.", ASK),
    "runs": Entry("heavy.cli.runs:runs", "List runs, newest first.", LOOK),
    "show": Entry("heavy.cli.runs:show", "Tell a run as a story, down to each step.", LOOK),
    "watch": Entry("heavy.cli.runs:watch", "Watch a run that is under way.", LOOK),
    "cancel": Entry("heavy.cli.runs:cancel", "Cancel a run and say what it cost.", LOOK),
    "record": Entry("heavy.cli.record:record", "Freeze a run's tool calls to a file, for replay.", LOOK),
    "replicas": Entry("heavy.cli.replicas:replicas", "List model servers and runners.", LOOK),
    "cache": Entry("heavy.cli.cache:cache", "Look into the tool cache, and purge it.", LOOK),
    "batch": Entry("heavy.cli.batch:batch", "Ask many questions, here or as a Ray job.", MANY),
    "eval": Entry("heavy.cli.eval:evaluate", "Score a dataset: single, vote and heavy, with prices.", MANY),
    "up": Entry("heavy.cli.up:up", "Serve on this machine, until Ctrl-C.", SERVE),
    "profiles": Entry("heavy.cli.profiles:profiles", "List, show and check profiles of models.", SERVE),
    "doctor": Entry("heavy.cli.doctor:doctor", "See what is missing here, and what mends it.", SERVE),
    "completion": Entry("heavy.cli.completion:completion", "Complete commands in your shell.", SERVE),
}
"""One line a command; its module is imported when it is called."""

EPILOG = """\b
Exit codes:
  0    answered; all of them
  1    a run ended without an answer
  2    a wrong flag, or a request the server called invalid
  3    no server, or one without its store
  4    refused: the server is full or the token is wrong
  5    the budget of a batch was reached
  78   a setting or a profile that cannot work
  130  Ctrl-C: a run that `heavy ask` had begun was cancelled in the engine, and its cost was said
"""


@click.group(
    cls=LazyGroup,
    entries=COMMANDS,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog=EPILOG,
)
@click.version_option(__version__, prog_name="heavy")
def cli() -> None:
    """Heavy mode on your own models: up to eight agents answer one question in parallel, then one
    reflective pass reads all of them and answers.

    \b
    heavy demo                      see it work on this machine, with nothing installed
    heavy up                        serve
    heavy ask "What is 17 * 23?"    ask a server
    heavy show                      read the last run, step by step
    heavy doctor                    see what is missing, and what mends it
    heavy cache stats               what its tool cache saves
    """


def main() -> None:
    """The entry point: errors become one message and an exit code, never a traceback."""
    try:
        sys.exit(cli.main(prog_name="heavy", standalone_mode=False))  # alone, click calls Ctrl-C a failure
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except HeavyError as error:
        click.secho(f"heavy: {error}", err=True, fg="red")
        if hint := exits.hint_of(error):
            click.echo(hint, err=True)
        sys.exit(exits.of_error(error))
    except (click.Abort, KeyboardInterrupt):
        sys.exit(exits.INTERRUPTED)


if __name__ == "__main__":
    main()

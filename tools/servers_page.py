"""Make the page on servers from what the doctor saw.

    python -m hother.cancelable doctor --json seen.json
    python tools/servers_page.py seen.json

The argument is what it saw; without one, the page is made from ``docs/reference/servers.json`` again.
That file keeps what the page says, without the figures of each run.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

DIRECTORY = Path(__file__).parents[1] / "docs" / "reference"
FACTS, PAGE = DIRECTORY / "servers.json", DIRECTORY / "servers.md"

MARKS = {"pass": "✓", "limitation": "○", "FAIL": "✗", "absent": "·"}

HEAD = """# Servers

<!-- Made by tools/servers_page.py from servers.json: change neither by hand. -->

What becomes of requests, in every way in which they may end, at every moment that they may be in, on
every server. Each mark is a run of the [doctor](../how-to/doctor.md), which you can repeat on your own
servers. {versions}

✓ as it should be. ○ the server cannot: an application without the middleware fails there just so, in the
same run; see [below](#what-servers-cannot-do). ✗ a fault of ours, which is known. · the server has no such
thing.

{legend}
"""

BOUNDS = """## What is looked at

Each scenario looks at the handler (what ended it, what its token says, how long that took), at the answer
that the client got (its status, and whether it ended, was cut short visibly, or never ends), at the call of
the application as the server sees it (no exception but its own gets out), at the server's log (no traceback
that is not the application's own), and at what is left in the process (tasks, and objects of ours).

A handler has 0.5 s to end after what should end it; a response that was cut short must look so.

## What servers cannot do
"""

BLIND = """
## Where nothing can be done

Two things hide a client's leaving on every server, or on most:

* **A body that nobody reads.** Servers stop reading a connection when its application does not take the
  body, and the client's leaving comes behind it. The middleware reads ahead, up to `read_ahead` bytes. Beyond
  that: read the body, or refuse it early; and set a deadline, which needs nobody to be seen.
* **A pipelined request.** A second request that is sent before the first one is answered waits in the same
  line. Browsers and proxies do not do that.

And one thing hides it in the application: a `BaseHTTPMiddleware` outside of this one, while a request's body
was not read. Put this middleware outermost.

## A server that ends

Hypercorn's Trio worker ends, with all of its connections, when a client that has not sent all of its body
hangs up between the last two writes of an answer: one task closes the connection's sending side while another
one writes, and nobody catches the `trio.BusyResourceError`. An application that returns without an answer, as
one does that its server cancels, is all that it takes. No middleware sees that write. The doctor starts such
a server again, twice for a scenario, plays that again, and says so below its table; if this library's code is
in a traceback, it fails instead. Have a supervisor start workers again, or run Hypercorn on asyncio.
"""


def reduced(seen: dict[str, Any]) -> dict[str, Any]:
    """Return what the page says, without the figures of the run: a mark for each server, and the reasons."""
    marks = {(it["scenario"], it["server"]): MARKS[it["verdict"]] for it in seen["results"]}
    rows = [
        {**it, "marks": "".join(marks[it["name"], server] for server in seen["servers"])}
        for it in seen["scenarios"]
    ]
    facts = {name: value for name, value in seen.items() if name != "results"}
    return {**facts, "scenarios": rows, "limitations": _limited(seen["results"])}


def _limited(results: list[dict[str, Any]]) -> list[dict[str, Any]]:
    found: dict[tuple[str, str], dict[str, Any]] = {}
    for it in results:
        if it["verdict"] == "limitation":
            what = it["limitation"] or {"text": f"{it['scenario']}: not known yet", "reference": ""}
            one = found.setdefault(
                (what["text"], what["reference"]), {**what, "servers": [], "scenarios": []}
            )
            for key in ("server", "scenario"):
                if it[key] not in one[f"{key}s"]:
                    one[f"{key}s"].append(it[key])
    return sorted(found.values(), key=lambda one: sorted(one["servers"]))


def page(facts: dict[str, Any]) -> str:
    """Return the page."""
    return "\n".join(_lines(facts)) + "\n"


def _lines(facts: dict[str, Any]) -> Iterator[str]:
    names = list(facts["servers"])
    legend = [
        f"{number}. {name} ({it['package']} {it['version']})"
        for number, (name, it) in enumerate(facts["servers"].items(), 1)
    ]
    packages = ", ".join(f"{name} {version}" for name, version in facts["packages"].items())
    versions = f"This one was made with Python {facts['python']}, {packages}."
    yield HEAD.format(versions=versions, legend="\n".join(legend)).rstrip()
    yield ""
    yield from _tables(facts, names)
    yield BOUNDS
    yield from _limitations(facts)
    yield BLIND.rstrip()


def _tables(facts: dict[str, Any], names: list[str]) -> Iterator[str]:
    group = ""
    for scenario in facts["scenarios"]:
        if scenario["group"] != group:
            if group:
                yield ""
            group = scenario["group"]
            yield f"| **{group}** | {' | '.join(str(number) for number in range(1, len(names) + 1))} |"
            yield "|:--|" + ":-:|" * len(names)
        yield f"| {scenario['title']} | {' | '.join(scenario['marks'])} |"
    yield ""


def _limitations(facts: dict[str, Any]) -> Iterator[str]:
    titles = {it["name"]: f"{it['group']}: {it['title']}" for it in facts["scenarios"]}
    for it in facts["limitations"]:
        link = f" [Read more]({it['reference']})." if it["reference"].startswith("http") else ""
        yield f"**{', '.join(it['servers'])}**: {_sentence(it['text'])}{link}"
        yield ""
        yield from (f"* {titles[name]}" for name in it["scenarios"])
        yield ""


def _sentence(text: str) -> str:
    text = text.replace("``", "`")
    return f"{text[0].upper()}{text[1:]}."


def main(arguments: list[str]) -> None:
    """Make both files."""
    if arguments:
        seen = json.loads(Path(arguments[0]).read_text(encoding="utf-8"))
        for it in seen["results"]:
            if it["verdict"] == "FAIL":
                print(f"{it['server']}: {it['scenario']} failed, and the page says so", file=sys.stderr)
        FACTS.write_text(json.dumps(reduced(seen), indent=1, ensure_ascii=False) + "\n", encoding="utf-8")
    PAGE.write_text(page(json.loads(FACTS.read_text(encoding="utf-8"))), encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])

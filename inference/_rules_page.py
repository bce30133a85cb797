"""The rules as a page for the clinician who confirms them: docs/safety/rules.md is made of it."""

from __future__ import annotations

from aidpost.inference._rules import RULES, Condition, Rule, RuleBook, rule_book

_HEAD = """# The rules, one by one

Made by `scripts/make-rules` from `inference/rules/*.toml`, and part of [the hazard log](hazards.md): a wrong rule is a
hazard, and each row says what holds when, by which limits, from which source, and **who should confirm it before
clinical use**. A site may set its own limits under `[limits]` of its configuration; a finding then says so. The limits
of glucose warnings were chosen on simulated people: `benchmarks/forecast.py` prints what each costs in false alarms.
"""


def page() -> str:
    """The whole page, in Markdown."""
    parts = [_HEAD]
    for path in sorted(RULES.glob("*.toml")):
        book = rule_book(path.stem)
        assert book.hazard is not None, f"{path.name} names no hazard"
        tests = ", ".join(f"`{test}`" for test in book.hazard.tests)
        parts.append(f"\n## {path.stem} ({book.version.partition(' ')[2]})\n\n{book.hazard.text}. Held by {tests}.\n")
        parts.append(
            "| number | rule | level | holds when | limits and sources | confirmed by |\n|---|---|---|---|---|---|"
        )
        parts += [_row(f"R-{path.stem}-{n}", rule, book) for n, rule in enumerate(book.rules, 1)]
    return "\n".join(parts) + "\n"


def _row(number: str, rule: Rule, book: RuleBook) -> str:
    names = sorted({v[1:] for _, _, v in rule.conditions if isinstance(v, str) and v.startswith("$")})
    limits = [f"{name} {book[name]:g} {book.limits[name].unit}: {book.limits[name].source}" for name in names]
    sources = "; ".join(([rule.source] if rule.source else []) + limits) or "site policy"
    confirm = ", ".join(sorted({book.limits[name].confirm for name in names} or {"clinician"}))
    level = rule.severity.value + (", red flag" if rule.red_flag else "") + (", reassures" if rule.reassures else "")
    days = rule.within_days
    acted = "" if days is None else "today" if days == 0 else f"within {days} days"
    cells = [number, rule.name, level, _when(rule), acted, sources, confirm]
    return "| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |"


def _when(rule: Rule) -> str:
    both = " and ".join(_words(one) for one in rule.when)
    either = " or ".join(_words(one) for one in rule.any)
    return " and ".join(part for part in (both, f"({either})" if both and either else either) if part) or "always"


def _words(condition: Condition) -> str:
    fact, compare, value = condition
    shown = value[1:] if isinstance(value, str) and value.startswith("$") else value
    if compare == "in":
        shown = " ".join(str(one) for one in value)
    return f"{fact} {compare} {str(shown).lower() if isinstance(shown, bool) else shown}"

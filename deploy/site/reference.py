"""Pages that mkdocs makes from the code while it builds the site: commands, topics, records and HTTP.

mkdocs.yml names this file under `hooks`. No page is checked in, so none can be out of date.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib.resources import files as package_files
from pathlib import Path
from typing import Any

import typer.main
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

from headrace import cli
from headrace.commands.topics import acl_names
from headrace.config.settings import Settings
from headrace.kafka.acls import Role, rights_of
from headrace_load import cli as load_cli

EXAMPLES = package_files("headrace_schemas") / "examples"
OUTSIDE = re.compile(r"\]\(((?:\.\./)+[^)#]+)(#[^)]*)?\)")


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the generated pages to those of docs/. mkdocs calls this."""
    for name, text in pages().items():
        files.append(File.generated(config, f"reference/{name}.md", content=text))
    return files


def on_page_markdown(markdown: str, page: Any, config: MkDocsConfig, files: Files) -> str:  # noqa: ARG001 - mkdocs passes it by name
    """Turn links to files of the repository that are not on the site into their names. mkdocs calls this."""
    folder = Path(config.docs_dir, page.file.src_uri).parent

    def named(link: re.Match[str]) -> str:
        target = (folder / link[1]).resolve()
        root = Path(config.docs_dir).resolve()
        return link[0] if target.is_relative_to(root) else f"] (`{target.relative_to(root.parent)}`)"

    return OUTSIDE.sub(named, markdown)


def pages() -> dict[str, str]:
    """The text of each generated page by its name."""
    wire = json.loads((package_files("headrace_schemas") / "generated" / "asyncapi.json").read_text("utf-8"))
    http = json.loads((package_files("headrace.gateway") / "openapi.json").read_text("utf-8"))
    return {
        "commands": "\n".join(commands_page()),
        "topics": "\n".join(topics_page(wire)),
        "records": "\n".join(records_page(wire)),
        "http": "\n".join(http_page(http)),
    }


def commands_page() -> Iterator[str]:
    """Every command of both programs, with its arguments and options."""
    yield "# Commands\n\nMade from the code. `COMMAND --help` says the same in a terminal."
    for name, app in (("headrace", cli.app), ("headrace-load", load_cli.app)):
        yield from _command(name, typer.main.get_command(app), None)


def _command(path: str, command: Any, parent: Any) -> Iterator[str]:
    context = command.context_class(command, info_name=path.rpartition(" ")[2], parent=parent)
    yield f"\n## {path}\n\n{_plain(command.help or '')}\n"
    yield f"    {path} {' '.join(command.collect_usage_pieces(context))}\n"
    rows = [record for one in command.get_params(context) if (record := one.get_help_record(context))]
    if rows:
        yield from _table(("option", ""), [(f"`{names}`", _plain(said)) for names, said in rows])
    for name in command.list_commands(context) if hasattr(command, "list_commands") else ():
        # Commands are imported when they are resolved.
        below = command.resolve_command(context, [name])[1]
        if not below.hidden:
            yield from _command(f"{path} {name}", below, context)


def topics_page(wire: dict[str, Any]) -> Iterator[str]:
    """Every topic: records, writers and readers, settings as `topics apply` makes them, and the rights of roles."""
    yield "# Topics\n\nMade from the code. `headrace topics apply` creates them, `headrace topics acl` prints rights."
    for name, channel in wire["channels"].items():
        kafka = channel["bindings"]["kafka"]
        records = ", ".join(f"[{record}](records.md#{record.lower()})" for record in channel["messages"])
        yield f"\n## {name}\n\n{channel['title']}. {channel['description']}\n\nRecords: {records}\n"
        made = {"partitions": kafka["partitions"], "replicas": kafka["replicas"], **kafka["topicConfiguration"]}
        yield from _table(("setting", "value"), [(f"`{key}`", f"`{_value(value)}`") for key, value in made.items()])
    names = acl_names(Settings(), ())
    yield "\n## Least rights\n"
    rights = [(role, right) for role in Role for right in rights_of(role, names)]
    yield from _table(
        ("role", "on", "may"),
        [(str(role), f"{one.resource} `{one.name}`", ", ".join(one.operations)) for role, one in rights],
    )


def records_page(wire: dict[str, Any]) -> Iterator[str]:
    """Every record: where it is, key, headers, fields, and an example that tests decode."""
    yield "# Records\n\nMade from the schemas. A field is added with a default and never changes its meaning."
    schemas = wire["components"]["schemas"]
    for name, message in wire["components"]["messages"].items():
        places = [topic for topic, channel in wire["channels"].items() if name in channel["messages"]]
        payload = message["payload"]
        schema = schemas.get(payload.get("$ref", "").rpartition("/")[2], payload)
        yield f"\n## {name}\n\n{_plain(message.get('summary') or schema.get('description', ''))}\n"
        yield f"On {', '.join(f'`{place}`' for place in places)}.\n"
        key = message["bindings"]["kafka"].get("key", {}).get("description")
        if key:
            yield f"Key: {_plain(key)}\n"
        yield from _fields(schema)
        headers = message.get("headers", {}).get("properties", {})
        if headers:
            yield ""
            yield from _table(("header", "value"), [(f"`{one}`", _kind(about)) for one, about in headers.items()])
        example = EXAMPLES / f"{_kebab(name)}.full.json"
        if example.is_file():
            told = json.dumps(json.loads(example.read_text("utf-8")), indent=2, ensure_ascii=False)
            yield f"\n```json\n{told}\n```"
    yield from _schemas({name: one for name, one in schemas.items() if name not in wire["components"]["messages"]})


def http_page(http: dict[str, Any]) -> Iterator[str]:
    """Every path of the gateway, its parameters, bodies and replies."""
    yield "# HTTP\n\nMade from the code; the gateway serves the whole document as `/openapi.json`."
    for path, methods in http["paths"].items():
        for method, about in methods.items():
            yield f"\n## {method.upper()} {path}\n\n{_plain(about.get('description') or about['summary'])}\n"
            rows = [
                (f"`{one['name']}`", one["in"], _plain(one.get("description", "")))
                for one in about.get("parameters", ())
            ]
            if rows:
                yield from _table(("parameter", "in", ""), rows)
                yield ""
            body = about.get("requestBody", {}).get("content", {})
            if body:
                yield from _table(("body", ""), [(f"`{kind}`", _kind(one["schema"])) for kind, one in body.items()])
                yield ""
            replies = [
                (
                    f"`{status}`",
                    ", ".join(f"`{kind}`" for kind in reply.get("content", {})),
                    _plain(reply["description"]),
                )
                for status, reply in about["responses"].items()
            ]
            yield from _table(("reply", "as", ""), replies)
    yield from _schemas(http["components"]["schemas"])


def _schemas(schemas: dict[str, Any]) -> Iterator[str]:
    """What other schemas name."""
    for name, schema in sorted(schemas.items()):
        yield f"\n## {name}\n\n{_plain(schema.get('description', ''))}\n"
        yield from _fields(schema)


def _fields(schema: dict[str, Any]) -> Iterator[str]:
    required = set(schema.get("required", ()))
    rows = []
    for name, about in schema.get("properties", {}).items():
        absent = "required" if name in required else f"`{json.dumps(about.get('default'))}`"
        rows.append((f"`{name}`", _kind(about), absent, _plain(about.get("description", ""))))
    if rows:
        yield from _table(("field", "type", "default", ""), rows)


def _kind(schema: dict[str, Any]) -> str:
    """The type of a value, in a word or some."""
    if "$ref" in schema:
        name = schema["$ref"].rpartition("/")[2]
        return f"[{name}](#{name.lower()})"
    if "enum" in schema:
        return " or ".join(f"`{json.dumps(one)}`" for one in schema["enum"])
    if "anyOf" in schema:
        return " or ".join(dict.fromkeys(_kind(one) for one in schema["anyOf"]))
    if schema.get("type") == "array":
        return f"list of {_kind(schema['items'])}" if schema.get("items") else "list"
    if isinstance(schema.get("additionalProperties"), dict):
        return f"object of {_kind(schema['additionalProperties'])}"
    return str(schema.get("type", "any"))


def _table(head: tuple[str, ...], rows: list[tuple[str, ...]]) -> Iterator[str]:
    yield f"| {' | '.join(head)} |"
    yield f"|{'---|' * len(head)}"
    for row in rows:
        yield f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in row)} |"


def _value(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)


def _plain(text: str) -> str:
    """One paragraph on one line, without what only a terminal understands, and nothing taken for HTML."""
    return re.sub(r"\s+", " ", text).replace("<", "&lt;").strip()


def _kebab(name: str) -> str:
    return re.sub(r"(?<=[a-z])(?=[A-Z])", "-", name).lower()

"""A fleet built by a script, as a team would write it: PyYAML with its C loader, jsonschema, jinja2.

    render.py PROJECT TO RUNTIME PROCESSES COUNT

reads the first COUNT specs of a project, checks each against schema/customer.schema.json, applies the defaults, renders
the pack's own templates and writes both files of each worker below TO. The stand compares them with flotilla's, byte by
byte; only the digest is made in another way. What flotilla checks across customers is not checked here, and mistakes
have no lines: the first one ends the script.
"""

import hashlib
import json
import multiprocessing
import os
import re
import sys

import jinja2
import jsonschema
import yaml


class Loader(yaml.CSafeLoader):
    """YAML 1.2, where `on` and 2026-06-01 are text."""


Loader.yaml_implicit_resolvers = {
    first: [(tag, form) for tag, form in resolvers if tag.rsplit(":", 1)[1] not in ("bool", "timestamp")]
    for first, resolvers in yaml.CSafeLoader.yaml_implicit_resolvers.items()
}
Loader.add_implicit_resolver("tag:yaml.org,2002:bool", re.compile("^(?:true|false)$"), list("tf"))


def load(path):
    with open(path, encoding="utf-8") as file:
        return yaml.load(file, Loader)


# Text in quotes and comments of all languages: what could end them, and what a reader can't see.
SPECIAL = re.compile(
    "[\"\\\\'`$<>&\x00-\x1f\x7f-\x9f\xad\u061c\u115f\u1160\u180e\u200b-\u200f\u2028-\u202e\u2060-\u206f\u3164\ufeff"
    "\uffa0\ufff9-\ufffb]"
)
SHORT = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
IDENTIFIER = re.compile("[A-Za-z_][A-Za-z0-9_]*$")


def text(value):
    return SPECIAL.sub(lambda found: SHORT.get(found[0]) or f"\\u{ord(found[0]):04x}", value)


class Safe(str):
    """What stands in the output as it is."""


def printed(value):
    if isinstance(value, Safe):
        return value
    if isinstance(value, bool):
        return str(value).lower()
    return text(str(value)).replace("*/", "*\\u002f")


def literal(value, script, indent):
    if isinstance(value, str):
        return f'"{text(value)}"'
    if isinstance(value, dict):
        items = [
            lambda indent, name=name, value=value: f"{key(name, script)}: {literal(value, script, indent)}"
            for name, value in sorted(value.items())
        ]
        return several("{", "}", " " if items else "", items, script, indent)
    if isinstance(value, list):
        items = [lambda indent, value=value: literal(value, script, indent) for value in value]
        return several("[", "]", "", items, script, indent)
    return json.dumps(value)


def several(start, end, pad, items, script, indent):
    rendered = [item(indent + 2) for item in items]
    line = f"{start}{pad}{', '.join(rendered)}{pad}{end}"
    if not items or (len(line) + indent <= 90 and "\n" not in line):
        return line
    space = " " * (indent + 2)
    last = "," if script else ""
    return f"{start}\n{space}" + f",\n{space}".join(rendered) + f"{last}\n{' ' * indent}{end}"


def key(name, script):
    return name if script and IDENTIFIER.match(name) else f'"{text(name)}"'


class Fleet:
    """What all customers have in common, read and compiled once in each process."""

    def __init__(self, project, runtime):
        self.project, self.runtime = project, runtime
        self.file = load(f"{project}/fleet.yaml")
        [self.pack] = [pack["path"] for pack in self.file["packs"].values()]
        self.manifest = load(f"{project}/{self.pack}/pack.yaml")
        with open(f"{project}/{self.pack}/{self.manifest['catalogue']}", encoding="utf-8") as file:
            self.types = json.load(file)["destinations"]
        with open(f"{project}/schema/customer.schema.json", encoding="utf-8") as file:
            self.schema = jsonschema.Draft202012Validator(json.load(file))
        environment = jinja2.Environment(
            finalize=printed, keep_trailing_newline=True, undefined=jinja2.StrictUndefined
        )
        environment.filters["ts"] = lambda value, indent=0: Safe(literal(value, True, indent))
        environment.filters["json"] = lambda value, indent=0: Safe(literal(value, False, indent))
        environment.filters["keys"] = list
        self.module = self.manifest["module"]
        self.templates = {
            name: environment.from_string(self.template(name)) for name in [self.module, *self.manifest["files"]]
        }

    def template(self, name):
        with open(f"{self.project}/{self.pack}/{name}", encoding="utf-8") as file:
            # The one difference between the two template languages that the pack meets.
            return re.sub(r"(for \w+, \w+ in [\w.]+)", r"\1.items()", file.read())


def workers(fleet, spec, file):
    defaults = fleet.file.get("defaults", {})
    environments = spec.get("environments") or defaults.get("environments") or {"production": None}
    for environment in environments:
        layers = [
            environments[environment] or {},
            spec,
            (defaults.get("environments") or {}).get(environment) or {},
            defaults,
        ]

        def pick(name, otherwise=None):
            return next((layer[name] for layer in layers if name in layer), otherwise)

        def merged(name):
            values = {}
            for layer in reversed(layers):
                values.update(layer.get(name) or {})
            return values

        name = f"{fleet.manifest['prefix']}-{spec['id']}"
        variables = merged("vars")
        secrets = {name: reference["secret"] for name, reference in merged("secrets").items()}
        database = pick("database", {"type": "none"})
        if database["type"] == "turso":
            variables["TURSO_DATABASE_URL"] = database["url"]
            secrets["TURSO_AUTH_TOKEN"] = database["token"]["secret"]
        elif database["type"] == "d1":
            database = {"type": "d1", "binding": "DB", "name": database["name"], "id": database["id"]}
        destinations = []
        for destination in pick("destinations", []):
            where = destination.get("environments") or [destination.get("environment", environment)]
            if environment not in where or destination.get("enabled") is False or destination.get("deleted"):
                continue
            kind = fleet.types[destination["type"]]
            settings = destination.get("settings", {})
            for setting, schema in kind["settings"]["properties"].items():
                if schema.get("$ref") == "#/$defs/secret" and setting in settings:
                    secrets.setdefault(settings[setting]["secret"], settings[setting]["secret"])
            count = sum(other["type"] == destination["type"] for other in destinations) + 1
            destinations.append({
                "id": destination["type"] if count == 1 else f"{destination['type']}-{count}",
                "name": destination["name"],
                "type": destination["type"],
                "requiredConsent": destination.get("requiredConsent", kind["requiredConsent"]),
                "settings": settings,
            })
        accounts = fleet.file.get("accounts", {})
        namespace = accounts.get(pick("account", "default"), {}).get("dispatchNamespace")
        observability = pick("observability", {"enabled": True})
        yield {
            "worker": {
                "file": file,
                "customer": spec["id"],
                "customerName": spec.get("name", spec["id"]),
                "environment": environment,
                "name": name if environment == "production" else f"{name}-{environment}",
                "workersDev": namespace is None and pick("workersDev", True),
                "trustedOrigins": pick("trustedOrigins", []),
                "logLevel": pick("logLevel", "info"),
                "database": database,
                "destinations": destinations,
                "secrets": dict(sorted(secrets.items())),
                "crons": sorted(set(pick("crons", []))),
                "compatibilityDate": pick("compatibilityDate", "2026-06-01"),
                "compatibilityFlags": sorted(set(pick("compatibilityFlags", []))),
            },
            "runtime": fleet.runtime,
            "vars": dict(sorted(variables.items())),
            "routes": [{"pattern": domain, "custom_domain": True} for domain in sorted(pick("domains", []))]
            + [{"pattern": route["pattern"], "zone_name": route["zone"]} for route in pick("routes", [])],
            # Generated customers have no service bindings.
            "services": [],
            "observability": {"enabled": observability["enabled"]}
            | ({"head_sampling_rate": observability["sampling"]} if "sampling" in observability else {}),
        }


def build(fleet, to, file):
    spec = load(f"{fleet.project}/{file}")
    for error in fleet.schema.iter_errors(spec):
        raise SystemExit(f"{file}: {error.json_path}: {error.message}")
    if f"customers/{spec['id']}.yaml" != file:
        raise SystemExit(f"{file}: the id is {spec['id']}")
    for view in workers(fleet, spec, file):
        files = {fleet.module: fleet.templates[fleet.module].render(view)}
        hashed = json.dumps([files[fleet.module], view], sort_keys=True, ensure_ascii=False)
        view["vars"]["FLOTILLA_DIGEST"] = hashlib.sha256(hashed.encode()).hexdigest()
        view["vars"] = dict(sorted(view["vars"].items()))
        for name in fleet.manifest["files"]:
            files[name] = fleet.templates[name].render(view)
        folder = f"{to}/{view['worker']['environment']}/{spec['id']}"
        os.makedirs(folder)
        for name, rendered in files.items():
            with open(f"{folder}/{name.removesuffix('.tera')}", "w", encoding="utf-8", newline="") as output:
                output.write(rendered)


def begin(*arguments):
    global FLEET
    FLEET = Fleet(*arguments)


def several_builds(to, files):
    for file in files:
        build(FLEET, to, file)


def main():
    project, to, runtime, processes, count = sys.argv[1:]
    processes = int(processes)
    files = [f"customers/{name}" for name in sorted(os.listdir(f"{project}/customers"))][: int(count)]
    if processes == 1:
        begin(project, runtime)
        several_builds(to, files)
        return
    # As many shares as keep all processes busy until the end.
    share = max(1, len(files) // (processes * 8))
    shares = [(to, files[at : at + share]) for at in range(0, len(files), share)]
    with multiprocessing.Pool(processes, begin, (project, runtime)) as pool:
        pool.starmap(several_builds, shares, chunksize=1)


main()

#!/usr/bin/python3
"""Writes what a program is linked from as a CycloneDX 1.5 document: cargo metadata in, JSON out.

sbom.py PACKAGE TARGET NAME=VERSION... < metadata.json > sbom.cdx.json
Only what ends up in the program: no build scripts' and no tests' dependencies. The words name what the tools link in that
no manifest does: Rust's standard library, and of a static program the C library and the compiler's own.
"""
import json
import sys
import uuid


# Name of a tool's library: what it is, its licence (SPDX), where it comes from.
TOOLS = {
    "rust-std": (
        "The standard library of Rust, with the crates it is made of",
        "(MIT OR Apache-2.0) AND MIT AND (Apache-2.0 WITH LLVM-exception)",
        "https://github.com/rust-lang/rust",
    ),
    "glibc": ("The GNU C library", "LGPL-2.1-or-later", "https://sourceware.org/git/glibc.git"),
    "musl": ("The C library musl", "MIT", "https://git.musl-libc.org/cgit/musl"),
    "zig-compiler-rt": ("The runtime library of the zig compiler", "MIT", "https://codeberg.org/ziglang/zig"),
    "mingw-w64": (
        "The start-up code and import libraries of mingw-w64",
        "ZPL-2.1",
        "https://git.code.sf.net/p/mingw-w64/mingw-w64",
    ),
    "libgcc": (
        "The runtime library of GCC",
        "GPL-3.0-or-later WITH GCC-exception-3.1",
        "https://gcc.gnu.org/git/gcc.git",
    ),
}


def tool(word):
    name, _, version = word.partition("=")
    description, licence, source = TOOLS[name]
    purl = "pkg:generic/{}@{}".format(name, version)
    return {
        "type": "library",
        "bom-ref": purl,
        "name": name,
        "version": version,
        "purl": purl,
        "description": description,
        "licenses": [{"expression": licence}],
        "externalReferences": [{"type": "vcs", "url": source}],
    }


def main():
    package, target = sys.argv[1], sys.argv[2]
    tools = [tool(word) for word in sys.argv[3:]]
    metadata = json.load(sys.stdin)
    packages = {found["id"]: found for found in metadata["packages"]}
    nodes = {node["id"]: node for node in metadata["resolve"]["nodes"]}
    root = next(found["id"] for found in metadata["packages"] if found["name"] == package)

    def linked(node):
        for dependency in nodes[node]["deps"]:
            if any(kind["kind"] is None for kind in dependency["dep_kinds"]) and not is_macro(dependency["pkg"]):
                yield dependency["pkg"]

    def is_macro(node):
        return any("proc-macro" in found["kind"] for found in packages[node]["targets"])

    reached, waiting = set(), [root]
    while waiting:
        node = waiting.pop()
        if node not in reached:
            reached.add(node)
            waiting.extend(linked(node))

    def reference(node):
        found = packages[node]
        return "pkg:cargo/{}@{}".format(found["name"], found["version"])

    def component(node):
        found = packages[node]
        described = {
            "type": "application" if node == root else "library",
            "bom-ref": reference(node),
            "name": found["name"],
            "version": found["version"],
            "purl": reference(node),
        }
        if found.get("license"):
            described["licenses"] = [{"expression": found["license"].replace("/", " OR ")}]
        if found.get("description"):
            described["description"] = " ".join(found["description"].split())
        if found.get("repository"):
            described["externalReferences"] = [{"type": "vcs", "url": found["repository"]}]
        return described

    others = sorted(reached - {root}, key=reference)
    document = {
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {
            "component": component(root),
            "properties": [{"name": "cdx:rustc:target", "value": target}],
        },
        "components": [component(node) for node in others] + tools,
        "dependencies": [
            {
                "ref": reference(node),
                "dependsOn": sorted(
                    {reference(other) for other in linked(node)}
                    | ({found["bom-ref"] for found in tools} if node == root else set())
                ),
            }
            for node in [root, *others]
        ]
        + [{"ref": found["bom-ref"], "dependsOn": []} for found in tools],
    }
    # The serial number names the content: the same sources give the same document.
    document["serialNumber"] = uuid.uuid5(uuid.NAMESPACE_URL, json.dumps(document, sort_keys=True)).urn
    json.dump(document, sys.stdout, indent=1, sort_keys=True)
    print()


main()

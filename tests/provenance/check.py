"""Other people's programs read what caco signs and packs, without the network.

    python tests/provenance/check.py target/release/caco

A small pipeline is run in a folder of its own. securesystemslib verifies every signature, in-toto-attestation parses every
statement and its predicate, roc-validator holds the RO-Crate to the REQUIRED level of its three profiles, mlcroissant loads
the Croissant file and its records. Nothing is skipped: what cannot be checked is an error.
"""

import base64
import json
import os
import pathlib
import subprocess
import sys
import tempfile

import mlcroissant
import requests
import rocrate
import urllib3
from cryptography.hazmat.primitives.serialization import load_pem_public_key
from google.protobuf import json_format
from in_toto_attestation.predicates.provenance.v1 import provenance_pb2
from in_toto_attestation.predicates.test_result.v0 import test_result_pb2
from in_toto_attestation.v1 import statement_pb2
from in_toto_attestation.v1.statement import Statement
from requests_cache import CachedSession
from rocrate_validator import models, services
from securesystemslib import exceptions
from securesystemslib.dsse import Envelope
from securesystemslib.signer import SSlibKey

PIPELINE = """(
    name: "small",
    stages: {
        "list": command(shell: "ls data > list; cat data/* >> list", inputs: {"data": Path("data")}, outputs: ["list"]),
        "model=1": command(shell: "mkdir m; cp list m/weights; echo done", inputs: {"list": Stage("list")}, outputs: ["m"]),
        "report": command(shell: "cat m/weights > report.csv", inputs: {"m": Stage("model=1")}, outputs: ["report.csv"]),
    },
    targets: ["report"],
)
"""

INDEX = """{"format":1,"classes":["cat","dog"],"images":2}
{"path":"cat/1.jpg","label":0,"size":[4,5],"bytes":9,"blake3":"%s"}
{"path":"dog/2.jpg","label":1,"size":[4,5],"bytes":9,"blake3":"%s"}
""" % ("a" * 64, "b" * 64)

CONTEXT = "https://w3id.org/ro/crate/1.1/context"
PROFILES = ["process-run-crate-0.5", "workflow-run-crate-0.5", "provenance-run-crate-0.5"]


def main() -> None:
    caco = pathlib.Path(sys.argv[1]).resolve()
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        env = {**os.environ, "CACO_KEYS": str(folder / "keys"), "CACO_CACHE": str(folder / "cache"), "CI": "1"}
        env.pop("CACO_PIPELINE", None)

        def run(*args: str) -> str:
            done = subprocess.run([caco, *args], cwd=folder, env=env, capture_output=True, text=True)
            assert done.returncode == 0, f"caco {' '.join(args)}\n{done.stdout}{done.stderr}"
            return done.stdout

        (folder / "data").mkdir()
        (folder / "data/x").write_text("pixels\n")
        (folder / "p.ron").write_text(PIPELINE)
        (folder / "pets.jsonl").write_text(INDEX)
        run("run", "p.ron")
        run("audit", "p.ron", "--rerun")
        keys = json.loads(run("signer", "list", "--json"))
        results = sorted(folder.glob("cache/results/*/*/*/attestation.json"))
        reruns = sorted(folder.glob("cache/verdicts/*/*.json"))
        assert len(results) == 3 and len(reruns) == 1, (results, reruns)
        for path in results:
            predicate = check_signed(path, keys[0], "https://slsa.dev/provenance/v1")
            # Fields of our own are allowed there; protobuf must be asked to ignore them.
            json_format.ParseDict(predicate, provenance_pb2.Provenance(), ignore_unknown_fields=True)
        for path in reruns:
            predicate = check_signed(path, keys[0], "https://in-toto.io/attestation/test-result/v0.1")
            found = json_format.ParseDict(predicate, test_result_pb2.TestResult())
            assert found.result == "PASSED", found
        run("export", "ro-crate", "crate", "--license", "https://creativecommons.org/licenses/by/4.0/")
        check_crate(folder / "crate", folder / "contexts")
        run("export", "croissant", "pets.jsonl", "--out", "pets", "--license", "https://creativecommons.org/licenses/by/4.0/",
            "--url", "https://example.org/pets")
        check_croissant(folder / "pets")


def check_signed(path: pathlib.Path, key: dict, predicate_type: str) -> dict:
    """The predicate of a signed statement."""
    public = SSlibKey.from_crypto(load_pem_public_key(key["public"].encode()))
    assert public.keyid == key["id"], f"securesystemslib calls the key {public.keyid}, caco {key['id']}"
    text = json.loads(path.read_text())
    Envelope.from_dict(json.loads(path.read_text())).verify([public], 1)
    payload = base64.b64decode(text["payload"])
    text["payload"] = base64.b64encode(payload + b" ").decode()
    try:
        Envelope.from_dict(text).verify([public], 1)
    except exceptions.VerificationError:
        pass
    else:
        raise AssertionError(f"{path}: another text passes with the same signature")
    statement = json.loads(payload)
    parsed = json_format.ParseDict(statement, statement_pb2.Statement())
    Statement.copy_from_pb(parsed).validate()
    assert statement["predicateType"] == predicate_type, statement["predicateType"]
    print(f"signature and statement of {statement['subject'][0]['name']} ({predicate_type}) hold")
    return statement["predicate"]


class Vendored(requests.adapters.BaseAdapter):
    """Answers with the context that the package rocrate carries, and with nothing else."""

    def send(self, request, **_):
        assert request.url == CONTEXT, f"no answer is vendored for {request.url}"
        response = requests.Response()
        response.status_code, response.url, response.request = 200, request.url, request
        response.headers["Content-Type"] = "application/ld+json"
        body = (pathlib.Path(rocrate.__file__).parent / "data/ro-crate.jsonld").open("rb")
        response.raw = urllib3.HTTPResponse(
            body=body, headers=response.headers, status=200, preload_content=False, request_url=request.url
        )
        return response

    def close(self):
        pass


def check_crate(crate: pathlib.Path, cache: pathlib.Path) -> None:
    session = CachedSession(cache_name=str(cache), backend="sqlite", expire_after=-1)
    session.mount("https://", Vendored())
    assert session.get(CONTEXT).json()["@id"] == CONTEXT
    session.close()
    for profile in PROFILES:
        issues, checks = validate(crate, profile, cache)
        assert not issues, f"{profile}:\n" + "\n".join(issues)
        print(f"the crate passes {profile}, {checks} checks")
    # The validator does look: a crate whose actions name no tool fails.
    path = crate / "ro-crate-metadata.json"
    metadata = json.loads(path.read_text())
    for entity in metadata["@graph"]:
        entity.pop("instrument", None)
    path.write_text(json.dumps(metadata))
    for profile in PROFILES:
        issues, _ = validate(crate, profile, cache)
        assert issues, f"{profile}: a crate without instruments passes"


def validate(crate: pathlib.Path, profile: str, cache: pathlib.Path) -> tuple[list[str], int]:
    """What the validator has to say at the level REQUIRED, and how many checks it made."""
    settings = services.ValidationSettings(
        rocrate_uri=str(crate),
        profile_identifier=profile,
        requirement_severity=models.Severity.REQUIRED,
        offline=True,
        cache_path=cache,
    )
    result = services.validate(settings)
    issues = [f"{issue.check.identifier}: {issue.message}" for issue in result.get_issues()]
    assert bool(issues) != result.passed(), issues
    return issues, len(result.executed_checks)


def check_croissant(folder: pathlib.Path) -> None:
    dataset = mlcroissant.Dataset(jsonld=folder / "croissant.json")
    context = dataset.metadata.ctx
    assert not context.issues.errors and not context.issues.warnings, context.issues.report()
    assert context.conforms_to.value == "http://mlcommons.org/croissant/1.1", context.conforms_to
    records = list(dataset.records("images"))
    assert [record["images/label"] for record in records] == [b"cat", b"dog"], records
    print(f"the Croissant file loads, {len(records)} records")


if __name__ == "__main__":
    main()

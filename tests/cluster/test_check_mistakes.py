"""`hedgerow check`: every mistake is named with its path, and nothing else is."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from serve_documents import app, document, target_settings

from cluster.check import check_document

Edit = Callable[[dict[str, Any]], object]

MISTAKES: dict[str, tuple[Edit, str]] = {
    "ray top level": (
        lambda c: c.update(htp_options={}),
        "htp_options: unknown key; did you mean 'http_options'?",
    ),
    "ray http": (
        lambda c: c["http_options"].update(prot=1),
        "http_options.prot: unknown key; did you mean 'port'?",
    ),
    "ray application": (
        lambda c: app(c).update(route_prefx="/"),
        "applications[0].route_prefx: unknown key; did you mean 'route_prefix'?",
    ),
    "ray deployment": (
        lambda c: app(c)["deployments"][1].update(max_ongoing=3),
        "applications[0].deployments[1].max_ongoing: unknown key; "
        "did you mean 'max_ongoing_requests'?",
    ),
    "ray actor": (
        lambda c: app(c)["deployments"][0].update(ray_actor_options={"num_gpu": 1}),
        "applications[0].deployments[0].ray_actor_options.num_gpu: unknown key; "
        "did you mean 'num_gpus'?",
    ),
    "ray autoscaling": (
        lambda c: app(c)["deployments"][0].update(autoscaling_config={"policy": {"x": 1}}),
        "applications[0].deployments[0].autoscaling_config.policy.x: unknown key; "
        "allowed: policy_function, policy_kwargs",
    ),
    "target key": (
        lambda c: app(c)["args"]["target"].update(numeric="fast"),
        "applications[0].args.target.numeric: unknown key; did you mean 'numerics'?",
    ),
    "args key": (
        lambda c: app(c)["args"].update(drafter=[]),
        "applications[0].args.drafter: unknown key; did you mean 'drafters'?",
    ),
    "a head without a folder": (
        lambda c: app(c)["args"]["drafters"].append({"name": "code", "kind": "head"}),
        "applications[0].args.drafters[1]: kind 'head' needs the key 'path': a drafter's folder",
    ),
    "a model with two sources": (
        lambda c: app(c)["args"]["drafters"].append(
            {"name": "code", "kind": "model", "path": "a", "model": "b"}
        ),
        "applications[0].args.drafters[1]: kind 'model' needs one of the keys 'model' and 'path'",
    ),
    "a stop without a folder": (
        lambda c: app(c)["args"]["drafters"][0].update(stop_threshold=0.5),
        "applications[0].args.drafters[0]: stop_threshold is for drafters with a path",
    ),
    "a path for a lookup": (
        lambda c: app(c)["args"]["drafters"][0].update(path="models/code"),
        "applications[0].args.drafters[0]: kind 'prompt_lookup' takes no key 'path'",
    ),
    "a folder that is none": (
        lambda c: app(c)["args"]["drafters"].append(
            {"name": "code", "kind": "head", "path": "models/nowhere"}
        ),
        "applications[0].args.drafters[1].path: 'models/nowhere' is no drafter: "
        "it has no config.json that can be read",
    ),
    "drafter key": (
        lambda c: app(c)["args"]["drafters"][0].update(knd="x"),
        "applications[0].args.drafters[0].knd: unknown key; did you mean 'kind'?",
    ),
    "selector key": (
        lambda c: target_settings(c)["selector"].update(lookup=["lookup"]),
        "applications[0].deployments[1].user_config.selector.lookup: unknown key; "
        "did you mean 'lookups'?",
    ),
    "limits key": (
        lambda c: app(c)["deployments"][0]["user_config"]["limits"].update(max_body=1),
        "applications[0].deployments[0].user_config.limits.max_body: unknown key; "
        "did you mean 'max_body_bytes'?",
    ),
    "host key": (
        lambda c: app(c)["args"].update(hosts=[{"name": "code", "num_gpu": 1}]),
        "applications[0].args.hosts[0].num_gpu: unknown key; did you mean 'num_gpus'?",
    ),
    "unknown host": (
        lambda c: app(c)["args"]["drafters"][0].update(host="code"),
        "applications[0].args: drafters: 'lookup' names the host 'code', which is not among "
        "`hosts`; configured: none",
    ),
    "resource of Ray's own": (
        lambda c: app(c)["args"].update(hosts=[{"name": "code", "resources": {"GPU": 1}}]),
        "applications[0].args.hosts[0]: resources: 'GPU' is no resource of the operator's own",
    ),
    "host given twice": (
        lambda c: (
            app(c)["args"]["drafters"][0].update(host="code"),
            app(c)["args"].update(hosts=[{"name": "code"}, {"name": "code"}]),
        ),
        "applications[0].args: hosts: two of them have the name 'code'",
    ),
    "type": (
        lambda c: app(c)["args"]["target"].update(num_kv_tokens="many"),
        "applications[0].args.target.num_kv_tokens: 'many': expected integer",
    ),
    "no coercion": (
        lambda c: app(c)["args"]["target"].update(num_kv_tokens="4096"),
        "applications[0].args.target.num_kv_tokens: '4096': expected integer",
    ),
    "range": (
        lambda c: app(c)["args"]["target"].update(block_size=0),
        "applications[0].args.target.block_size: 0: expected greater than or equal to 1",
    ),
    "infinity": (
        lambda c: app(c)["deployments"][0]["user_config"]["limits"].update(
            request_timeout_s=float("inf")
        ),
        "applications[0].deployments[0].user_config.limits.request_timeout_s: "
        "inf: expected a finite number",
    ),
    "choice": (
        lambda c: app(c)["args"]["target"].update(numerics="exact"),
        "applications[0].args.target.numerics: 'exact': expected 'fast' or 'invariant'",
    ),
    "quantization": (
        lambda c: app(c)["args"]["target"].update(quantization="int3"),
        "applications[0].args.target.quantization: 'int3': expected 'float16'",
    ),
    "quantization elsewhere": (
        lambda c: app(c)["args"]["target"].update(quantization="float16", device="cuda"),
        "applications[0].args.target: quantization 'float16' is for device 'cpu', not 'cuda'",
    ),
    "quantization of another type": (
        lambda c: app(c)["args"]["target"].update(quantization="float16", dtype="bfloat16"),
        "applications[0].args.target: "
        "quantization 'float16' is for dtype 'float32', not 'bfloat16'",
    ),
    "selector name": (
        lambda c: target_settings(c).update(selector={"name": "rul"}),
        "applications[0].deployments[1].user_config.selector: name 'rul' is unknown; "
        "one of 'fixed', 'rule', 'ucbspec', 'exp3spec', 'hedge', 'normalhedge', 'survival'",
    ),
    "selector without name": (
        lambda c: target_settings(c).update(selector={"draft_length": 3}),
        "applications[0].deployments[1].user_config.selector: the key 'name' is missing",
    ),
    "missing": (
        lambda c: target_settings(c).update(selector={"name": "rule"}),
        "applications[0].deployments[1].user_config.selector.lookups: is missing",
    ),
    "speculation": (
        lambda c: target_settings(c).update(speculation="maybe"),
        "applications[0].deployments[1].user_config.speculation: 'maybe': expected 'on' or 'off'",
    ),
    "unconfigured drafter": (
        lambda c: target_settings(c).update(selectors={"b": {"name": "rule", "lookups": ["no"]}}),
        "applications[0].deployments[1].user_config.selectors.b: 'no' is no configured drafter; "
        "configured: lookup",
    ),
    "same name": (
        lambda c: app(c)["args"]["drafters"].append({"name": "lookup", "kind": "suffix"}),
        "applications[0].args: drafters: two of them have the name 'lookup'",
    ),
    "model for the wrong kind": (
        lambda c: app(c)["args"]["drafters"][0].update(model="x"),
        "applications[0].args.drafters[0]: kind 'prompt_lookup' takes no key 'model'",
    ),
    "model missing": (
        lambda c: app(c)["args"]["drafters"][0].update(kind="model"),
        "applications[0].args.drafters[0]: kind 'model' needs one of the keys 'model' and 'path'",
    ),
    "arm of nothing": (
        lambda c: target_settings(c).update(selector={"name": "fixed", "drafter": "lookup"}),
        "applications[0].deployments[1].user_config.selector: a drafter needs draft_length >= 1, "
        "and no drafter draft_length 0",
    ),
    "deployment name": (
        lambda c: app(c)["deployments"][1].update(name="Targt"),
        "applications[0].deployments[1].name: 'Targt' is no deployment; "
        "one of Ingress, Router, Target",
    ),
    "deployment twice": (
        lambda c: app(c)["deployments"].append({"name": "Target"}),
        "applications[0].deployments[2].name: this deployment is given twice",
    ),
    "import path": (
        lambda c: app(c).update(import_path="app:app"),
        "applications[0].import_path: 'app:app': "
        "expected deployments.app:build_app or deployments.app:app",
    ),
    "no applications": (
        lambda c: c.update(applications=[]),
        "applications: expected a list of one application",
    ),
    "scalar for a mapping": (
        lambda c: c.update(http_options=8000),
        "http_options: 8000: expected a mapping of keys",
    ),
    "list for a mapping": (
        lambda c: c.update(http_options=[{"host": "127.0.0.1"}]),
        "http_options: [{'host': '127.0.0.1'}]: expected a mapping of keys",
    ),
    "nothing for a mapping": (
        lambda c: c.update(http_options=None),
        "http_options: None: expected a mapping of keys",
    ),
    "host is null": (
        lambda c: c["http_options"].update(host=None),
        "http_options.host: None: expected string",
    ),
    "host is a list": (
        lambda c: c["http_options"].update(host=["127.0.0.1"]),
        "http_options.host: expected string",
    ),
    "port is a string": (
        lambda c: c["http_options"].update(port="8000"),
        "http_options.port: '8000': expected integer",
    ),
    "port of nobody": (
        lambda c: c["http_options"].update(port=0),
        "http_options.port: 0: expected greater than or equal to 1",
    ),
    "no proxy": (
        lambda c: c.update(proxy_location="Disabled"),
        "proxy_location: 'Disabled': expected HeadOnly or EveryNode",
    ),
    "another prefix": (
        lambda c: app(c).update(route_prefix="/api"),
        "applications[0].route_prefix: '/api': expected '/'",
    ),
    "no prefix": (
        lambda c: app(c).update(route_prefix=None),
        "applications[0].route_prefix: None: expected '/'",
    ),
    "args for a built application": (
        lambda c: app(c).update(import_path="deployments.app:app"),
        "applications[0].args: deployments.app:app takes none; "
        "give them to deployments.app:build_app",
    ),
    "args are null": (
        lambda c: (app(c).update(args=None), app(c)["deployments"].pop()),
        "applications[0].args: None: expected a mapping of keys",
    ),
    "an application is no mapping": (
        lambda c: c.update(applications=[None]),
        "applications[0]: None: expected a mapping of keys",
    ),
    "applications are a mapping": (
        lambda c: c.update(applications=app(c)),
        "applications: expected a list of one application",
    ),
    "deployments are null": (
        lambda c: app(c).update(deployments=None),
        "applications[0].deployments: None: expected a list",
    ),
    "deployment name is a list": (
        lambda c: app(c)["deployments"][1].update(name=["Target"]),
        "applications[0].deployments[1].name: ['Target'] is no deployment; "
        "one of Ingress, Router, Target",
    ),
}


@pytest.mark.parametrize("mistake", MISTAKES)
def test_each_mistake_is_named_alone_and_with_its_path(mistake: str) -> None:
    edit, expected = MISTAKES[mistake]
    content = document()
    edit(content)
    assert [str(problem) for problem in check_document(content)] == [expected]


def test_all_mistakes_of_a_file_are_named_at_once() -> None:
    content = document()
    for name in ("ray http", "target key", "range", "selector key"):
        MISTAKES[name][0](content)
    assert len(check_document(content)) == 4

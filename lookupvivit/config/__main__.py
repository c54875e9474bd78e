"""Write the JSON schema of configuration files, with which editors complete keys and mark errors.

    python -m lookupvivit.config > schema.json

Editors with yaml-language-server (such as VS Code's YAML extension) then need one line at the top of a file:

    # yaml-language-server: $schema=../schema.json
"""

import json

from lookupvivit.config.json_schema import JsonSchema
from lookupvivit.config.schema import RunConfig
from lookupvivit.experiments import PACKAGES, experiment


def editor_schema() -> JsonSchema:
    """The JSON schema of a configuration file, the sections of all experiments included.

    No key is required, because the file's ``base`` may provide it.
    """
    schema = RunConfig.model_json_schema()
    for name in PACKAGES:
        extended = experiment(name).Config.model_json_schema()
        schema["properties"] |= extended["properties"]
        schema["$defs"] |= extended["$defs"]
    base = {"type": "string", "description": "Another file in the same folder; this file states what differs from it."}
    schema["properties"] = {"base": base, **schema["properties"]}
    for section in (schema, *schema["$defs"].values()):
        section.pop("required", None)
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


if __name__ == "__main__":
    print(json.dumps(editor_schema(), indent=2))

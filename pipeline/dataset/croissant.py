"""Croissant 1.1 metadata of an annotation dataset, made from its Arrow schema."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import pyarrow as pa

from pipeline.dataset.dataset_schema import DESCRIBED
from sspsam.schema import SCHEMA_VERSION

_CROISSANT = "http://mlcommons.org/croissant"
_RECORDS, _FILES = "images", "parquet-files"
_TERMS = (
    "arrayShape citeAs column containedIn equivalentProperty extract field fileObject fileProperty fileSet "
    "format includes isArray isLiveDataset jsonPath key md5 parentField path recordSet references regex "
    "repeated replace samplingRate separator source subField transform"
)
#: The context that the specification gives (https://docs.mlcommons.org/croissant/docs/croissant-spec.html).
_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "sc": "https://schema.org/",
    "cr": f"{_CROISSANT}/",
    "rai": f"{_CROISSANT}/RAI/",
    "dct": "http://purl.org/dc/terms/",
    "conformsTo": "dct:conformsTo",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "description": {"@container": "@language"},
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "name": {"@container": "@language"},
    **{term: f"cr:{term}" for term in _TERMS.split()},
}
_TYPES = {
    pa.string(): "sc:Text",
    pa.bool_(): "sc:Boolean",
    pa.int32(): "cr:Int32",
    pa.int64(): "cr:Int64",
    pa.float32(): "cr:Float32",
}


def metadata(said: Mapping[str, Any]) -> str:
    """The JSON-LD text. `said`: as `data_card.facts` gives it."""
    counted = ", ".join(f"{count:,} {what}" for what, count in said["table"].items())
    model = said["model"]
    found = {
        "@context": _CONTEXT,
        "@type": "sc:Dataset",
        "conformsTo": [f"{_CROISSANT}/1.1", f"{_CROISSANT}/RAI/1.0"],
        "name": said["name"],
        "description": " ".join(
            filter(None, ("Mask annotations of phrases, one row an image:", f"{counted}.", said["caveat"]))
        ),
        "version": f"{SCHEMA_VERSION}.0.0",
        "dateCreated": said["started"],
        "keywords": list(said["tags"]),
        **({"license": said["license"]} if said["license"] else {}),
        "variableMeasured": [
            {"@type": "sc:PropertyValue", "propertyID": what.replace(" ", "_"), "value": count}
            for what, count in said["table"].items()
        ],
        "rai:machineAnnotationTools": [
            *([f"model {model['name']}, sha256 {model['sha256']}"] if model else []),
            *([said["versions"]] if said["versions"] else []),
        ],
        "rai:dataAnnotationProtocol": [said["command"], *said["options"]],
        **({"rai:dataLimitations": [said["caveat"]]} if said["caveat"] else {}),
        "identifier": said["mark"],
        "distribution": [
            {
                "@type": "cr:FileSet",
                "@id": _FILES,
                "name": "annotations",
                "encodingFormat": "application/x-parquet",
                "includes": said["files"],
            }
        ],
        "recordSet": [
            {
                "@type": "cr:RecordSet",
                "@id": _RECORDS,
                "name": _RECORDS,
                "key": [{"@id": f"{_RECORDS}/shard"}, {"@id": f"{_RECORDS}/index"}],
                "field": [_field(field) for field in said["schema"]],
            }
        ],
    }
    return json.dumps(found, indent=1, ensure_ascii=False) + "\n"


def _field(field: pa.Field, above: tuple[str, ...] = ()) -> dict[str, Any]:
    """One field, with those of a struct below it. `above`: names of the fields that it lies in."""
    path, kind = (*above, field.name), field.type
    found = {
        "@type": "cr:Field",
        "@id": "/".join((_RECORDS, *path)),
        "name": field.name,
        "description": DESCRIBED[".".join(path)],
    }
    if hasattr(kind, "value_type"):
        found |= {"isArray": True, "arrayShape": str(getattr(kind, "list_size", -1))}
        kind = kind.value_type
    below = path[1:]
    if path == ("image",):  # the struct in which `datasets` stores an image
        found["dataType"], below = "sc:ImageObject", ("bytes",)
    elif pa.types.is_struct(kind):
        return found | {"subField": [_field(child, path) for child in kind]}
    else:
        found["dataType"] = _TYPES[kind]
    source: dict[str, Any] = {"fileSet": {"@id": _FILES}, "extract": {"column": path[0]}}
    if below:
        source["transform"] = {"jsonPath": ".".join(below)}
    return found | {"source": source}

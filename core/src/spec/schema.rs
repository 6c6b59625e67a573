//! The JSON Schema of a spec, for editors.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::transform::{RecursiveTransform, Transform};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde_json::{Map, Value, json};

use super::written::{At, Document};
use super::{
    Bytes, CPUS, CapabilitySet, CpuSet, Cpus, GuestPath, HostPath, Hostname, Image, KernelName,
    Name, Network, Port, Resource, Restart, Signal, Tmpfs, Unit, User, WrittenSeccomp,
    WrittenVolume,
};

/// The JSON Schema (draft 2020-12) of a spec.
pub fn schema() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| {
        settings.transforms.push(Box::new(RecursiveTransform(without_null)));
    });
    let mut schema = settings.into_generator().into_root_schema_for::<Document>();
    RecursiveTransform(on_one_line).transform(&mut schema);
    if let Some(workload) = schema.pointer_mut("/$defs/Workload").and_then(Value::as_object_mut) {
        let one_root: Vec<Value> =
            ["image", "rootfs", "oci"].iter().map(|key| json!({ "required": [key] })).collect();
        workload.insert("oneOf".to_owned(), one_root.into());
    }
    schema.to_value()
}

/// TOML has no null, so that a key that may be left out is not one that may be null.
fn without_null(schema: &mut Schema) {
    let Some(object) = schema.as_object_mut() else { return };
    if let Some(Value::Array(types)) = object.get_mut("type") {
        types.retain(|kind| kind != "null");
        if let [only] = types.as_slice() {
            let only = only.clone();
            object.insert("type".to_owned(), only);
        }
    }
    if let Some(Value::Array(words)) = object.get_mut("enum") {
        words.retain(|word| !word.is_null());
    }
    if let Some(Value::Array(any)) = object.get_mut("anyOf") {
        any.retain(|schema| schema.get("type").is_none_or(|kind| kind != "null"));
        if let [Value::Object(only)] = any.as_slice() {
            let only = only.clone();
            object.remove("anyOf");
            object.extend(only);
        }
    }
}

/// Editors show a description's line ends as they stand; ours only keep the source narrow.
fn on_one_line(schema: &mut Schema) {
    let description = schema.as_object_mut().and_then(|object| object.get_mut("description"));
    if let Some(Value::String(text)) = description {
        *text = text.replace('\n', " ");
    }
}

impl<T: JsonSchema> JsonSchema for At<T> {
    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}

/// Stands for a duration in the schema.
pub(super) struct DurationText;

/// Patterns are the form only: ranges and what needs a second look are the parser's.
macro_rules! text_schema {
    ($($type:ty, $name:literal, $pattern:literal, $examples:tt;)*) => {
        $(impl JsonSchema for $type {
            fn schema_name() -> Cow<'static, str> {
                $name.into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!({ "type": "string", "pattern": $pattern, "examples": $examples })
            }
        })*

        /// Each type with its pattern and examples.
        #[cfg(test)]
        const TEXTS: &[(&str, &str, &[&str])] = &[$(($name, $pattern, &$examples)),*];
    };
}

text_schema! {
    Bytes, "Size", r"^[0-9]+(\.[0-9]+)?([KMGTPE]i?)?B$", ["512MiB", "1GiB", "100MB"];
    DurationText, "Duration", r"^([0-9]+h)?([0-9]+m)?([0-9]+s)?([0-9]+ms)?([0-9]+us)?$",
        ["10s", "1m30s", "500ms"];
    Name, "Name", r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$", ["api"];
    Hostname, "Hostname", r"^[A-Za-z0-9]([A-Za-z0-9.-]{0,61}[A-Za-z0-9])?$", ["api", "api.local"];
    KernelName, "KernelName", r"^[A-Za-z0-9][A-Za-z0-9._+-]*$", ["default"];
    GuestPath, "GuestPath", r"^/", ["/app"];
    HostPath, "HostPath", r"^.", ["./src", "/srv/data", "~/x"];
    User, "User", r"^[^:]+(:[^:]+)?$", ["1000:1000", "www-data"];
    Signal, "Signal", r"^[A-Za-z0-9+-]+$", ["SIGTERM", "SIGINT"];
    CapabilitySet, "Capability", r"^[A-Za-z_]+$", ["NET_ADMIN", "ALL"];
    WrittenVolume, "Volume", r"^[^:]+:/[^:]+(:(ro|rw|rprivate|rslave)(,(ro|rw|rprivate|rslave))?)?$",
        ["./src:/app/src:ro", "cache:/var/cache", "/media:/media:ro,rslave"];
    WrittenSeccomp, "Seccomp", r"^(default|.*/.*|.*\.json)$", ["default", "./seccomp.json"];
    CpuSet, "CpuSet", r"^[0-9]+(-[0-9]+)?(,[0-9]+(-[0-9]+)?)*$", ["0-3,8"];
    Tmpfs, "Tmpfs", r"^/[^:]+(:[0-9.]+[A-Za-z]+)?$", ["/tmp:64MiB", "/run"];
    Image, "Image", r"^[^ ]+$", ["host", "ghcr.io/acme/api:1.4"];
    Port, "Port", r"^[^/]+:[0-9]+(/(tcp|udp))?$", ["8080:8080", "127.0.0.1:8080:80/udp"];
    Restart, "Restart", r"^(no|on-failure(:[0-9]+)?|always|unless-stopped)$",
        ["no", "on-failure:3"];
    Network, "Network", r"^(none|nat|bridge:.+|host)$", ["none", "nat", "bridge:br0"];
}

impl JsonSchema for Cpus {
    fn schema_name() -> Cow<'static, str> {
        "Cpus".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        let number = |cpus: &Cpus| f64::from(cpus.milli()) / 1000.0;
        let (least, most) = (number(CPUS.start()), number(CPUS.end()));
        json_schema!({ "type": "number", "minimum": least, "maximum": most, "examples": [2, 0.5] })
    }
}

/// Stands for the table of resource limits in the schema.
pub(super) struct Rlimits;

impl JsonSchema for Rlimits {
    fn schema_name() -> Cow<'static, str> {
        "Rlimits".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let mut properties = Map::new();
        for (name, resource) in Resource::ALL {
            let (counts, one) = match resource.unit() {
                Unit::Count => ("a number", json!({ "type": "integer", "minimum": 0 })),
                Unit::Bytes => ("a size", generator.subschema_for::<Bytes>().to_value()),
                Unit::Seconds => (
                    "a duration in whole seconds",
                    generator.subschema_for::<DurationText>().to_value(),
                ),
                Unit::Micros => {
                    ("a duration", generator.subschema_for::<DurationText>().to_value())
                }
            };
            let limit = json!({ "anyOf": [one, { "const": 0 }, { "const": "unlimited" }] });
            let pair = json!({
                "type": "object",
                "properties": { "soft": limit, "hard": limit },
                "required": ["soft", "hard"],
                "additionalProperties": false,
            });
            let entry = json!({
                "description": format!("`RLIMIT_{}` of setrlimit(2): {counts}.", name.to_uppercase()),
                "anyOf": [limit, pair],
            });
            properties.insert(name.to_owned(), entry);
        }
        json_schema!({
            "type": "object",
            "properties": properties,
            "additionalProperties": false,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fmt::Debug;
    use std::str::FromStr;

    use super::*;
    use crate::spec::parse_duration;

    /// Every example of the schema is a value; that is all that can be said of its pattern here.
    #[test]
    fn examples_are_values() {
        fn check<T: FromStr<Err: Debug>>(examples: &[&str]) {
            for example in examples {
                assert!(example.parse::<T>().is_ok(), "{example}");
            }
        }
        for (name, _, examples) in TEXTS {
            match *name {
                "Size" => check::<Bytes>(examples),
                "Duration" => assert!(examples.iter().all(|text| parse_duration(text).is_ok())),
                "Name" => check::<Name>(examples),
                "Hostname" => check::<Hostname>(examples),
                "KernelName" => check::<KernelName>(examples),
                "GuestPath" => check::<GuestPath>(examples),
                "HostPath" => check::<HostPath>(examples),
                "User" => check::<User>(examples),
                "Signal" => check::<Signal>(examples),
                "Capability" => check::<CapabilitySet>(examples),
                "Volume" => check::<WrittenVolume>(examples),
                "Seccomp" => check::<WrittenSeccomp>(examples),
                "CpuSet" => check::<CpuSet>(examples),
                "Tmpfs" => check::<Tmpfs>(examples),
                "Image" => check::<Image>(examples),
                "Port" => check::<Port>(examples),
                "Restart" => check::<Restart>(examples),
                "Network" => check::<Network>(examples),
                other => panic!("{other} has no check"),
            }
        }
    }
}

//! The description for clients says what the routes say, and what the code takes.

use http::{HeaderMap, HeaderValue, Method, header};
use serde_json::Value;

use super::call::{Call, Given};
use super::peer::Peer;
use super::route::{ROUTES, find};
use super::run::OPENAPI;

fn description() -> Value {
    serde_json::from_str(OPENAPI).unwrap()
}

#[test]
fn description_has_every_route_and_no_other() {
    let description = description();
    let mut described = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            if method != "parameters" {
                described.push((method.to_uppercase(), path.clone()));
            }
        }
    }
    let mut routes: Vec<(String, String)> = ROUTES
        .iter()
        .map(|(method, path, _)| (method.to_string(), (*path).to_owned()))
        .collect();
    described.sort();
    routes.sort();
    assert_eq!(described, routes);
}

#[test]
fn description_has_the_parts_of_every_path_and_each_operation_a_name_of_its_own() {
    let description = description();
    let mut names = Vec::new();
    for (path, item) in description["paths"].as_object().unwrap() {
        let parts: Vec<&str> = path.split('/').filter(|p| p.starts_with('{')).collect();
        let described = item.get("parameters").and_then(Value::as_array);
        let described: Vec<String> = described
            .into_iter()
            .flatten()
            .map(|p| p["$ref"].as_str().unwrap().rsplit('/').next().unwrap())
            .map(|name| format!("{{{name}}}"))
            .collect();
        assert_eq!(described, parts, "{path}");
        for (_, operation) in item
            .as_object()
            .unwrap()
            .iter()
            .filter(|(k, _)| *k != "parameters")
        {
            names.push(operation["operationId"].as_str().unwrap());
        }
    }
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
}

#[test]
fn references_lead_somewhere() {
    fn walk(value: &Value, description: &Value) {
        match value {
            Value::Array(all) => all.iter().for_each(|v| walk(v, description)),
            Value::Object(members) => {
                if let Some(Value::String(to)) = members.get("$ref") {
                    let place = to.strip_prefix('#').unwrap();
                    assert!(description.pointer(place).is_some(), "{to}");
                }
                members.values().for_each(|v| walk(v, description));
            }
            Value::Bool(_) | Value::Null | Value::Number(_) | Value::String(_) => {}
        }
    }
    let description = description();
    walk(&description, &description);
}

#[test]
fn examples_of_bodies_are_taken() {
    let description = description();
    let mut headers = HeaderMap::new();
    let json = HeaderValue::from_static("application/json; charset=utf-8");
    headers.insert(header::CONTENT_TYPE, json);
    let root = Peer { uid: 0, pid: None };
    let mut taken = 0;
    for (method, path, _) in ROUTES {
        let operation = &description["paths"][path][method.as_str().to_lowercase()];
        let examples = &operation["requestBody"]["content"]["application/json"]["examples"];
        let path = path
            .replace("{name}", "app")
            .replace("{address}", "10.0.0.1:80");
        for (name, example) in examples.as_object().into_iter().flatten() {
            let body = example["value"].to_string();
            let given = Given {
                query: "",
                headers: &headers,
                body: body.as_bytes(),
            };
            let found = find(method, &path).unwrap();
            let call = Call::read(found, given, root, 0);
            assert!(call.is_ok(), "{method} {path} {name}: {call:?}");
            taken += 1;
        }
    }
    assert_eq!(taken, 6);
}

#[test]
fn queries_described_are_known() {
    let description = description();
    let headers = HeaderMap::new();
    let root = Peer { uid: 0, pid: None };
    for (method, path, _) in ROUTES {
        let operation = &description["paths"][path][method.as_str().to_lowercase()];
        let names = operation["parameters"].as_array().into_iter().flatten();
        let pairs: Vec<String> = names
            .map(|p| match p["name"].as_str().unwrap() {
                "expires_in" => "expires_in=10m".to_owned(),
                name => format!("{name}=1"),
            })
            .collect();
        if *method == Method::DELETE || !pairs.is_empty() {
            let path = path
                .replace("{name}", "app")
                .replace("{address}", "10.0.0.1:80");
            let query = pairs.join("&");
            let given = Given {
                query: &query,
                headers: &headers,
                body: &[],
            };
            let call = Call::read(find(method, &path).unwrap(), given, root, 0);
            assert!(call.is_ok(), "{method} {path}?{query}: {call:?}");
        }
    }
}

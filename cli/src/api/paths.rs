//! The paths of the API, in one place; names and ids are encoded.

use std::fmt::{Display, Write};

/// Percent-encodes everything but RFC 3986's unreserved characters.
pub fn encode(text: impl Display) -> String {
    let mut encoded = String::new();
    for byte in text.to_string().bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => encoded.push(char::from(byte)),
            other => write!(encoded, "%{other:02X}").expect("a String takes everything"),
        }
    }
    encoded
}

/// `/root/NAME`.
pub fn item(root: &str, name: impl Display) -> String {
    format!("/{root}/{}", encode(name))
}

/// `/root/NAME/verb`.
pub fn verb(root: &str, name: impl Display, verb: &str) -> String {
    format!("/{root}/{}/{verb}", encode(name))
}

/// A path with those parameters that have a value.
pub fn query(path: &str, parameters: &[(&str, Option<String>)]) -> String {
    let given: Vec<String> = parameters
        .iter()
        .filter_map(|(name, value)| value.as_ref().map(|value| format!("{name}={}", encode(value))))
        .collect();
    if given.is_empty() { path.to_owned() } else { format!("{path}?{}", given.join("&")) }
}

/// The value of a switch that is only sent when it is on.
pub fn on(flag: bool) -> Option<String> {
    flag.then(|| "true".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_cannot_leave_its_place_in_the_path() {
        assert_eq!(item("assets", "../users?x=1#"), "/assets/..%2Fusers%3Fx%3D1%23");
        assert_eq!(verb("users", "a+b@c", "lock"), "/users/a%2Bb%40c/lock");
    }

    #[test]
    fn only_given_parameters_are_sent() {
        let path = query("/sessions", &[("active", on(true)), ("site", None), ("user", Some("a b".into()))]);
        assert_eq!(path, "/sessions?active=true&user=a%20b");
        assert_eq!(query("/sessions", &[("active", on(false))]), "/sessions");
    }
}

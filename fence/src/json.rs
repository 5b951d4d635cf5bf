//! Replies in JSON, read strictly: what is missing or of another type is a trouble, never a state.

use crate::plug::{Power, Trouble};
use serde_json::Value;

/// A reply, which is a JSON object.
pub(crate) fn object(text: &str) -> Result<Value, Trouble> {
    if text.trim().is_empty() {
        return Err(Trouble::Passing("it answers nothing".to_string()));
    }
    match serde_json::from_str(text) {
        Ok(value @ Value::Object(_)) => Ok(value),
        Ok(_) => Err(Trouble::Passing("it answers no JSON object".to_string())),
        Err(_) => Err(Trouble::Passing("it answers no JSON".to_string())),
    }
}

/// A truth value below `path`, a JSON pointer (RFC 6901).
pub(crate) fn boolean(value: &Value, path: &str) -> Result<bool, Trouble> {
    present(value, path)?.as_bool().ok_or_else(|| strange(path, "true or false"))
}

/// A text.
pub(crate) fn text<'a>(value: &'a Value, path: &str) -> Result<&'a str, Trouble> {
    present(value, path)?.as_str().ok_or_else(|| strange(path, "a text"))
}

/// A whole number.
pub(crate) fn integer(value: &Value, path: &str) -> Result<i64, Trouble> {
    present(value, path)?.as_i64().ok_or_else(|| strange(path, "a whole number"))
}

/// A relay that is told as 0 or 1.
pub(crate) fn relay(value: &Value, path: &str) -> Result<Power, Trouble> {
    match integer(value, path)? {
        0 => Ok(Power::Off),
        1 => Ok(Power::On),
        other => Err(Trouble::Passing(format!("the state {other} is neither 0 nor 1"))),
    }
}

/// A number, where there is one.
pub(crate) fn number(value: &Value, path: &str) -> Option<f64> {
    value.pointer(path)?.as_f64()
}

/// Whether something that may be missing is there and true.
pub(crate) fn is_true(value: &Value, path: &str) -> bool {
    value.pointer(path).and_then(Value::as_bool) == Some(true)
}

/// The elements of a list that may be missing.
pub(crate) fn list<'a>(value: &'a Value, path: &str) -> &'a [Value] {
    value.pointer(path).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

fn present<'a>(value: &'a Value, path: &str) -> Result<&'a Value, Trouble> {
    value.pointer(path).ok_or_else(|| {
        Trouble::Passing(format!("its answer has no {:?}", path.trim_start_matches('/')))
    })
}

fn strange(path: &str, want: &str) -> Trouble {
    let name = path.trim_start_matches('/');
    Trouble::Passing(format!("the {name:?} of its answer is not {want}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_right_type_is_read() {
        let value =
            object(r#"{"a": {"b": true, "c": "true", "d": 1, "e": 1.5, "f": null}}"#).unwrap();
        assert_eq!(boolean(&value, "/a/b"), Ok(true));
        for path in ["/a/c", "/a/d", "/a/f", "/a/x", "/x"] {
            assert!(boolean(&value, path).is_err(), "{path}");
        }
        assert_eq!(text(&value, "/a/c"), Ok("true"));
        assert_eq!(integer(&value, "/a/d"), Ok(1));
        assert!(integer(&value, "/a/e").is_err());
        assert!(integer(&value, "/a/b").is_err());
        assert_eq!(number(&value, "/a/e"), Some(1.5));
        for text in ["", " ", "[]", "1", "\"x\"", "null", "<html>", "{\"a\": 1", "{} {}"] {
            assert!(object(text).is_err(), "{text}");
        }
    }
}

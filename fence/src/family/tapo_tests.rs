//! What Tapo plugs answer, and what may be concluded from it.

use super::*;

fn children() -> Vec<Value> {
    let child = |id: &str, position: i64, name: &str| json!({"device_id": id, "position": position, "nickname": STANDARD.encode(name)});
    // Real strips list their sockets from the last to the first.
    vec![child("A03", 3, "1"), child("A02", 2, "node b"), child("A01", 1, "Knoten ä")]
}

#[test]
fn a_socket_of_a_strip_is_found_by_one_way_alone() {
    for (outlet, want) in [
        ("node b", Some("A02")),
        ("Knoten ä", Some("A01")),
        ("2", Some("A02")),
        ("3", Some("A03")),
        ("A01", Some("A01")),
        // The position of one and the name of another.
        ("1", None),
        ("0", None),
        ("4", None),
        ("02", None),
        ("Node B", None),
        ("bm9kZSBi", None),
    ] {
        assert_eq!(find_child(&children(), Some(outlet)).ok().as_deref(), want, "{outlet}");
    }
    assert!(matches!(find_child(&children(), None), Err(Trouble::Lasting(_))));
    let twice = [children()[1].clone(), children()[1].clone()];
    assert!(find_child(&twice, Some("node b")).is_err());
    assert!(find_child(&[json!({"position": 1})], Some("1")).is_err());
}

#[test]
fn an_answer_is_of_the_socket_that_was_asked() {
    let info = |id: &str| {
        json!({"device_id": id, "type": "SMART.TAPOPLUG", "nickname": STANDARD.encode("node a"),
            "device_on": false})
    };
    let child = Socket::Child("A01".to_string());
    assert_eq!(check_socket(&info("A01"), &child, Some("2"), None), Ok(()));
    assert!(check_socket(&info("A02"), &child, Some("2"), None).is_err());
    for (outlet, node, is_it) in [
        (None, None, true),
        (Some("1"), None, true),
        (Some("node a"), None, true),
        (Some("A01"), None, true),
        (Some("storage-a"), Some("storage-a"), true),
        (Some("storage-a"), None, false),
        (Some("2"), None, false),
    ] {
        let seen = check_socket(&info("A01"), &Socket::Whole, outlet, node);
        assert_eq!(seen.is_ok(), is_it, "{outlet:?}");
    }
    for kind in [json!("SMART.TAPOBULB"), json!(null), json!(1)] {
        let mut bulb = info("A01");
        bulb["type"] = kind.clone();
        assert!(check_socket(&bulb, &Socket::Whole, None, None).is_err(), "{kind}");
    }
}

#[test]
fn the_state_is_a_boolean() {
    assert_eq!(parse_power(&json!({"device_on": false})), Ok(Power::Off));
    assert_eq!(parse_power(&json!({"device_on": true})), Ok(Power::On));
    for state in [json!(0), json!("off"), json!(null), json!([false])] {
        assert!(parse_power(&json!({"device_on": state})).is_err(), "{state}");
    }
    assert!(parse_power(&json!({"on_off": 0})).is_err());
}

#[test]
fn every_answer_has_its_error_code() {
    assert_eq!(accepted(&json!({"error_code": 0})), Ok(Value::Null));
    let reply = json!({"error_code": 0, "result": {"x": 1}});
    assert_eq!(accepted(&reply), Ok(json!({"x": 1})));
    for (code, may_pass) in [(-1008, false), (-1002, false), (9999, true), (-1001, true)] {
        let trouble = accepted(&json!({"error_code": code, "result": {}})).unwrap_err();
        assert_eq!(matches!(trouble, Trouble::Passing(_)), may_pass, "{code}");
    }
    for reply in [json!({}), json!({"result": {}}), json!({"error_code": "0"})] {
        assert!(accepted(&reply).is_err(), "{reply}");
    }
}

#[test]
fn a_strip_says_that_it_has_sockets() {
    let of = |ids: &[&str]| {
        let all: Vec<Value> = ids.iter().map(|id| json!({"id": id, "ver_code": 1})).collect();
        is_strip(&json!({"component_list": all}))
    };
    assert_eq!(of(&["device", "control_child"]), Ok(true));
    assert_eq!(of(&["device", "schedule"]), Ok(false));
    assert!(of(&[]).is_err() && is_strip(&json!({})).is_err());
}

#[test]
fn what_switches_by_itself_is_found() {
    let rules = |enable: bool, states: Value| {
        let rule = json!({"id": "S1", "enable": enable, "desired_states": states, "remain": 9});
        json!({"enable": true, "rule_list": [rule]})
    };
    for (rules, is_found) in [
        (rules(true, json!({"on": true})), true),
        (rules(true, json!({})), true),
        (rules(true, json!({"on": false})), false),
        (rules(false, json!({"on": true})), false),
        (json!({"enable": false, "rule_list": []}), false),
    ] {
        assert_eq!(parse_countdown(&rules).is_some(), is_found, "{rules}");
        let schedules = parse_schedules(json::list(&rules, "/rule_list"));
        assert_eq!(schedules.len(), usize::from(is_found), "{rules}");
    }
    let timer = parse_countdown(&rules(true, json!({"on": true})));
    assert_eq!(timer.as_deref(), Some("a timer switches it on in 9 s"));
    assert!(parse_away(&rules(true, json!({}))).is_some());
    assert!(parse_away(&rules(false, json!({}))).is_none());
    assert!(parse_update(&json!({"enable": true, "time": 180})).is_some());
    assert!(parse_update(&json!({"enable": false})).is_none());
    assert!(parse_cloud(&json!({"status": 0})).is_some());
    assert!(parse_cloud(&json!({"status": 1})).is_none());
    assert!(parse_auto_off(&json!({"enable": true, "delay_min": 120})).is_some());
    assert!(parse_auto_off(&json!({"enable": false, "delay_min": 120})).is_none());
}

#[test]
fn a_plug_that_restarts_keeps_its_state() {
    for (states, is_hazard) in [
        (json!({"type": "last_states"}), false),
        (json!({"type": "last_states", "state": {}}), false),
        (json!({"type": "custom", "state": {"on": true}}), true),
        (json!({"type": "custom", "state": {"on": false}}), false),
        (json!({"type": "last_states", "re_power_type": "always_on"}), true),
        (json!({"type": "last_states", "re_power_type": "always_off"}), false),
    ] {
        let info = json!({"default_states": states});
        assert_eq!(parse_default(&info).is_some(), is_hazard, "{states}");
    }
    assert_eq!(parse_default(&json!({})), None);
}

use super::*;

fn of(lines: &str) -> Result<Settings, String> {
    Settings::new(&Options::from_lines(lines))
}

const TEMPLATE: &str = "type=http\npower_off_url=http://192.0.2.7:81/off?key=hush\npower_on_url=/on\n\
    status_url=/state\nstatus_on_regex=^on$\nstatus_off_regex=^off$\n";

#[test]
fn what_is_wrong_is_named() {
    for (lines, want) in [
        ("type=tasmota", "the option ip is required"),
        ("type=tasmota\nip=a b", "the option ip: \"a b\" is neither an address nor a name"),
        ("type=tasmota\nip=x\nipport=0", "the option ipport: 0 is not a port"),
        ("type=tasmota\nip=x\nipport=70000", "the option ipport: 70000 is not a port"),
        ("type=tasmota\nip=x\nplug=1,,2", "the option plug: \"1,,2\" has an outlet without a name"),
        ("type=tasmota\nip=x\nplug=1,1", "the option plug: \"1,1\" has the outlet \"1\" twice"),
        ("type=esphome\nip=x\nplug=Node A,node_a", "has the outlet \"node_a\" twice"),
        ("type=fritz\nip=x\nplug=08761 0000434,087610000434", "\"087610000434\" twice"),
        (
            "type=kasa\nip=x\nplug=node a,1",
            "the option plug: \"node a,1\" has a name and a position",
        ),
        ("type=tapo\nip=x\nplug=1,node a", "\"1,node a\" has a position and a name"),
        (
            "type=tapo\nip=x\nplug=node a,8022F9F21DB6889D90BF8E7AAB04CD47242AAAF900",
            "has a name and an id",
        ),
        ("type=tapo\nip=x\nssl=1", "the option ssl: type=tapo knows no TLS"),
        ("type=tasmota\nip=x\npower_timeout=0", "the option power_timeout: 0 is no time limit"),
        ("type=kasa\nip=x\nssl=1", "the option ssl: type=kasa knows no TLS"),
        ("type=shelly2\nip=x\nssl_secure=1\nssl_insecure=1", "contradict each other"),
        (
            "type=shelly2\nip=x\nssl=1\nssl_fingerprint=ab",
            "the option ssl_fingerprint: \"ab\" is not 64",
        ),
        ("type=shelly2\nip=x\nssl_ca_file=/x", "the option ssl_ca_file is nothing without ssl=1"),
        ("type=shelly2\nip=x\ninet4_only=1\ninet6_only=1", "contradict each other"),
        ("type=tasmota\nip=x\npower_sensor=y", "the option power_sensor: type=tasmota needs none"),
        (
            "type=homeassistant\nip=x\npower_sensor=y",
            "\"y\" is not an entity such as sensor.node_a",
        ),
        ("type=http\nip=x", "the option power_off_url is required with type=http"),
    ] {
        let wrong = of(lines).err().unwrap();
        assert!(wrong.contains(want), "{wrong}");
    }
    for (from, to, want) in [
        ("^on$", "(", "the option status_on_regex: \"(\""),
        ("^on$", "^off$", "are the same"),
        ("status_off_regex=^off$", "", "the option status_off_regex is required"),
        ("http://192.0.2.7:81/off?key=hush", "ftp://hush", "the option power_off_url is neither"),
    ] {
        let wrong = of(&TEMPLATE.replace(from, to)).err().unwrap();
        assert!(wrong.contains(want) && !wrong.contains("hush"), "{wrong}");
    }
}

#[test]
fn places_and_ports() {
    for (lines, host, port) in [
        ("type=tasmota\nip=192.0.2.1", "192.0.2.1", 80),
        ("type=tasmota\nip=[2001:db8::1]\nipport=81", "2001:db8::1", 81),
        ("type=shelly2\nip=X\nssl=1", "x", 443),
        ("type=shelly2\nip=x\nssl=0", "x", 80),
        ("type=kasa\nip=x", "x", 9999),
        ("type=klap\nip=x", "x", 80),
        ("type=tapo\nip=x", "x", 80),
        ("type=homeassistant\nip=x\nssl=1", "x", 8123),
        (TEMPLATE, "192.0.2.7", 81),
    ] {
        let place = of(lines).unwrap().place;
        assert_eq!((place.host.as_str(), place.port), (host, port), "{lines}");
    }
}

#[test]
fn an_outlet_is_needed_and_a_node_is_none() {
    let outlets = |lines: &str| {
        let settings = of(lines).unwrap();
        settings.checked_outlets().map(|outlets| outlets.len())
    };
    assert_eq!(outlets("type=tasmota\nip=x\nplug=1, 2"), Ok(2));
    assert_eq!(outlets("type=tasmota\nip=x\nplug=1;2\nplug_separator=;"), Ok(2));
    assert_eq!(outlets("type=kasa\nip=x"), Ok(1));
    assert!(outlets("type=tasmota\nip=x").unwrap_err().contains("plug is required"));
    // What Pacemaker sends to a device without an outlet.
    let named = "type=tasmota\nip=x\nplug=storage-a\nnodename=storage-a";
    assert!(outlets(named).unwrap_err().contains("pcmk_host_map"));
    let named = format!("{TEMPLATE}plug=storage-a\nnodename=storage-a");
    assert_eq!(outlets(&named), Ok(1));
}

#[test]
fn tls_is_verified_unless_told_otherwise() {
    let tls = |lines: &str| of(&format!("type=shelly2\nip=x\n{lines}")).unwrap().tls;
    assert_eq!(tls(""), Tls::None);
    assert_eq!(tls("ssl=0"), Tls::None);
    assert_eq!(tls("ssl=1"), Tls::System);
    assert_eq!(tls("ssl_secure=yes"), Tls::System);
    assert_eq!(tls("ssl=1\nssl_insecure=1"), Tls::Insecure);
    assert_eq!(tls("ssl=1\nssl_ca_file=/x"), Tls::Authority(PathBuf::from("/x")));
}

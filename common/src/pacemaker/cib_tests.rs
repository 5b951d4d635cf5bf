use super::*;
use std::fs;
use std::path::{Path, PathBuf};

#[test]
fn what_the_cluster_keeps_is_found_by_its_node() {
    let xml = "<configuration><crm_config><cluster_property_set id=\"x\">\
        <nvpair id=\"1\" name=\"stonith-enabled\" value=\"true\"/>\
        <nvpair id=\"2\" name=\"hasan-owner-p\" value=\"storage-b\"/>\
        <nvpair id=\"3\" name=\"hasan-owner-q\" value=\"a b\"/></cluster_property_set></crm_config>\
        <nodes><node id=\"1\" uname=\"storage-a\"/><node id=\"2\" uname=\"storage-b\">\
        <instance_attributes id=\"n\"><nvpair id=\"4\" name=\"hasan-dirty-p\" value=\"17\"/>\
        </instance_attributes></node></nodes><resources><primitive id=\"p\">\
        <nvpair id=\"5\" name=\"hasan-dirty-p\" value=\"0\"/></primitive></resources></configuration>";
    let cib = parse_cib(xml).unwrap();
    assert_eq!(cib.attribute("storage-b", "hasan-dirty-p"), Some("17"));
    assert_eq!(cib.attribute("storage-a", "hasan-dirty-p"), None);
    assert_eq!(cib.owner("p").unwrap().unwrap().node, "storage-b");
    assert_eq!(cib.owner("none"), Ok(None));
    assert!(cib.owner("q").unwrap_err().reason.contains("hasan-owner-q: \"a b\""));
    assert!(parse_cib("<configuration><crm_config").is_err());
}

#[test]
fn a_change_names_its_condition_and_keeps_the_ids_that_are_there() {
    let xml = "<configuration><crm_config><cluster_property_set id=\"set\">\
        <nvpair id=\"2\" name=\"hasan-owner-p\" value=\"storage-b\"/></cluster_property_set></crm_config>\
        <nodes><node id=\"1\" uname=\"storage-a\"/><node id=\"2\" uname=\"storage-b\">\
        <instance_attributes id=\"n\"><nvpair id=\"4\" name=\"m\" value=\"17\"/></instance_attributes></node>\
        </nodes></configuration>";
    let cib = parse_cib(xml).unwrap();
    let record = Owner { node: "storage-a".to_string(), ..Owner::parse("x").unwrap() };
    let set = |node, value| Change::Attribute { node, name: "m", value };
    let changes = [
        Change::Record { pool: "p", record: &record },
        set("storage-a", "<1>"),
        set("storage-b", "2"),
    ];
    let pair = |id: &str, value: &str| {
        format!("<nvpair id=\"{id}\" name=\"m\" value=\"{value}\"/></instance_attributes></node>")
    };
    let want = format!(
        "<configuration><crm_config><cluster_property_set id=\"set\">\
         <nvpair id=\"2\" name=\"hasan-owner-p\" value=\"storage-a\"/></cluster_property_set></crm_config>\
         <nodes><node id=\"1\" uname=\"storage-a\"><instance_attributes id=\"nodes-1\">{}\
         <node id=\"2\" uname=\"storage-b\"><instance_attributes id=\"n\">{}</nodes></configuration>",
        pair("nodes-1-m", "&lt;1&gt;"),
        pair("4", "2"),
    );
    assert_eq!(cib.document(&changes).unwrap(), want);
    assert!(cib.document(&[set("storage-x", "1")]).is_err());
    assert!(cib.shows(&set("storage-b", "17")) && !cib.shows(&set("storage-a", "17")));
    let owner = Condition::Owner { pool: "p" };
    let there = "/cib/configuration[crm_config//nvpair[@name='hasan-owner-p' and ";
    let want = "(@value='storage-a' or starts-with(@value,'storage-a '))]]";
    assert_eq!(owner.place("storage-a").unwrap(), format!("{there}{want}"));
    let unchanged = Condition::Record { pool: "p", record: &record };
    assert_eq!(unchanged.place("storage-a").unwrap(), format!("{there}@value='storage-a']]"));
    assert!(owner.place("a' or '1").is_err());
}

#[test]
fn a_new_id_has_no_colon_and_an_old_one_stays_as_it_is() {
    let xml = "<configuration><crm_config><cluster_property_set id=\"set\"/></crm_config><nodes>\
        <node id=\"1:a\" uname=\"a\"/><node id=\"2\" uname=\"b\"><instance_attributes id=\"n:2\"/></node>\
        </nodes></configuration>";
    let record = Owner::parse("a").unwrap();
    let set = |node| Change::Attribute { node, name: "hasan-dirty-p:q", value: "1" };
    let changes = [Change::Record { pool: "p:q", record: &record }, set("a"), set("b")];
    let document = parse_cib(xml).unwrap().document(&changes).unwrap();
    for want in [
        "<nvpair id=\"set-hasan-owner-p.q\" name=\"hasan-owner-p:q\"",
        "<node id=\"1:a\" uname=\"a\"><instance_attributes id=\"nodes-1.a\">\
         <nvpair id=\"nodes-1.a-hasan-dirty-p.q\" name=\"hasan-dirty-p:q\"",
        "<instance_attributes id=\"n:2\"><nvpair id=\"n.2-hasan-dirty-p.q\"",
    ] {
        assert!(document.contains(want), "{document}");
    }
}

/// A cluster of programs that say what a test wants. `cibadmin` writes down what it is asked, and a query shows the
/// mark after the first change.
fn cluster(name: &str, quorum: &str, members: &str) -> (Machine, PathBuf) {
    let root = std::env::temp_dir().join(format!("hasan-cib-{name}-{}", std::process::id()));
    // What an earlier run has left.
    let _ = fs::remove_dir_all(&root);
    let machine = Machine::recorded(&root);
    let here = root.display();
    let cib = "<configuration><crm_config><cluster_property_set id='s'/></crm_config><nodes>\
               <node id='2' uname='b'><instance_attributes id='n'>";
    let nodes = "</instance_attributes></node></nodes></configuration>";
    let mark = "<nvpair id='m' name='mark' value='now'/>";
    for (program, script) in [
        ("crm_node", format!("case $1 in --quorum) {quorum} ;; *) echo {members} ;; esac")),
        ("crm_attribute", format!("echo attribute >> {here}/asked")),
        (
            "cibadmin",
            format!(
                "echo \"$1\" >> {here}/asked; case $1 in --modify) exit 0 ;; esac; \
                 grep -q modify {here}/asked && echo \"{cib}{mark}{nodes}\" || echo \"{cib}{nodes}\""
            ),
        ),
    ] {
        machine.record_program(program, &script).unwrap();
    }
    (machine, root)
}

/// The cluster that answers so takes a mark; with what was asked of it.
fn mark_in(name: &str, quorum: &str, members: &str) -> (Result<(), Fault>, String) {
    let (machine, root) = cluster(name, quorum, members);
    let change = Change::Attribute { node: "b", name: "mark", value: "now" };
    let before = cib(&machine).unwrap();
    let result = before.change(&machine, "a", Condition::Owner { pool: "p" }, &[change]);
    let asked = machine.read(Path::new("/asked")).unwrap().unwrap_or_default();
    fs::remove_dir_all(root).unwrap();
    (result, asked)
}

#[test]
fn a_change_counts_with_quorum_only() {
    let (taken, asked) = mark_in("both", "echo 1", "a q");
    assert!(taken.is_ok() && asked.contains("--modify"), "{asked}");
    // With a quorum device there may be no other member.
    assert!(mark_in("device", "echo 1", "a").0.is_ok());
    let (refused, asked) = mark_in("none", "echo 0; exit 106", "a");
    assert!(refused.unwrap_err().reason.contains("no quorum"));
    assert!(!asked.contains("--modify"), "asked of a cluster without quorum: {asked}");
    // It goes while the change is taken.
    let goes = "grep -q modify ${0%/usr/*}/asked && { echo 0; exit 106; }; echo 1";
    let (refused, asked) = mark_in("goes", goes, "a");
    assert!(refused.unwrap_err().reason.contains("no quorum") && asked.contains("--modify"));
    assert!(mark_in("strange", "echo yes", "a q").0.is_err());
}

#[test]
fn an_attribute_is_not_changed_without_quorum() {
    let (machine, root) = cluster("attribute", "echo 0; exit 106", "a");
    let set = crate::pacemaker::set_attribute(&machine, "b", "fresh", "now");
    let removed = crate::pacemaker::remove_attribute(&machine, "b", "fresh");
    let asked = machine.read(Path::new("/asked")).unwrap();
    fs::remove_dir_all(root).unwrap();
    for result in [set, removed] {
        assert!(result.unwrap_err().reason.contains("no quorum"));
    }
    assert_eq!(asked, None);
}

#[test]
fn a_configuration_that_is_cut_off_is_not_one_without_marks() {
    let whole =
        "<configuration><crm_config/><nodes><node id=\"1\" uname=\"a\"/></nodes></configuration>";
    assert!(parse_cib(whole).is_ok());
    for length in [0, 15, 28, 35, whole.len() - 16] {
        assert!(parse_cib(&whole[..length]).is_err(), "{}", &whole[..length]);
    }
}

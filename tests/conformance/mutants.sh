#!/bin/bash
# mutants.sh [one]: breaks our programs, each time in one way, and demands that the line of the right tool becomes red; in all
# ways, or in one that HASAN_SEED picks. It works on a copy, with a target folder of its own, and takes some minutes for each.
set -euo pipefail
cd "$(dirname "$0")/../.."
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}/mutants
# They have to be built quickly, not to be quick.
export CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_OPT_LEVEL=0
copy=$(mktemp -d)
trap 'rm -rf "$copy"' EXIT
git ls-files -z | xargs -0 cp --parents --target-directory="$copy"
cd "$copy"
passed=0 failed=0 at=0 only=

# Of a tool that is red by itself a red line says nothing. Where one is asked for, all tools were green just before.
if [ "${1-}" = one ]; then
    seed=${HASAN_SEED:-$(date +%s)}
    echo "HASAN_SEED=$seed"
    only=$((seed % $(grep -c '^mutant "' tests/conformance/mutants.sh) + 1))
else
    make -s build
    cargo run -q -p hasan-conformance
fi

# mutant WHAT FILE EDIT NAME TOOL: the tool of this name is asked, and its line begins so.
mutant() {
    at=$((at + 1))
    [ "${only:-$at}" = "$at" ] || return 0
    cp "$2" original
    sed -i "$3" "$2"
    if cmp -s "$2" original; then
        echo "FAILED  $1: $3 changes nothing in $2"
        failed=$((failed + 1))
        return
    fi
    make -s build
    cargo run -q -p hasan-conformance -- "$4" > said 2>&1 || true
    if grep -qE "^$5.*: [0-9]+ checks, [1-9][0-9]* of them wrong" said; then
        echo "ok      $1: $(grep -cE "^$5.*, [1-9][0-9]* of them wrong\$" said) lines of $5 are red"
        passed=$((passed + 1))
    else
        echo "FAILED  $1: no red line of $5"
        tail -n 30 said
        failed=$((failed + 1))
    fi
    mv original "$2"
    # Its time is that of the first build.
    touch "$2"
}

mutant "a pool that is not there is an error of arguments" agents/zfs-pool/src/monitor.rs \
    's/Ok(Rc::NotRunning)/Ok(Rc::Arguments)/' crm_resource crm_resource
mutant "an action has no timeout" common/src/ocf/metadata.rs \
    's/("timeout", timeout.as_str())/("time", timeout.as_str())/' xmllint "xmllint with the document type"
mutant "a type of parameters that nobody knows" common/src/ocf/metadata.rs \
    's/=> "boolean"/=> "bool"/' xmllint "xmllint with the schema of pcs"
mutant "metadata take their time" common/src/ocf/mod.rs \
    's/"meta-data" => return/"meta-data" => { std::thread::sleep(std::time::Duration::from_millis(100)); return/; s/print(&metadata(agent)),/print(\&metadata(agent)); }/' \
    crm_resource crm_resource
mutant "an enumeration has a typo" agents/zfs-pool/src/main.rs \
    's/"ignore" => Ok/"ignroe" => Ok/' crm_resource crm_resource
mutant "two pools with one name" common/src/ocf/metadata.rs \
    's/("unique-group", group)/("unique-set", group)/' pcs pcs
mutant "a plug is switched on instead of off" fence/src/fencing.rs \
    's/plug.switch(want, until)/plug.switch(Power::On, until)/' stonith_admin pacemaker-fenced
mutant "the LUNs' deep monitor has the other one's interval" agents/sync-iscsi-luns/src/main.rs \
    's/interval: 60,/interval: 15,/' pcs pcs
mutant "a weakness is an error" agents/iscsi-backend-health/src/main.rs \
    's/Fault::new(Rc::Degraded, reason)/Fault::generic(reason)/' pacemakerd pacemakerd
mutant "metadata that declare attributes themselves" common/src/ocf/metadata.rs \
    's/dtd""#/dtd" [<!ATTLIST action more CDATA #IMPLIED>]"#/' pacemakerd "pacemakerd of Pacemaker 3"
mutant "the rest of a pool on the standby stops the pool where it serves" packaging/example/cluster.sh \
    's/multiple-active=stop_unexpected/multiple-active=stop_start/' crm_simulate crm_simulate
echo "$passed passed, $failed failed"
[ "$failed" = 0 ] && [ "$passed" != 0 ]

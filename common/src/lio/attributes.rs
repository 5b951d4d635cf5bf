//! What somebody has set of a backstore that initiators see: another node's backstore over the same zvol has to be the same.
//! As text it is "readonly,block_size=4096,model_alias", or less; empty where all is as the kernel has it.

use super::{Backstore, BackstoreName};
use crate::lio::observe::CORE;
use crate::machine::Machine;
use crate::ocf::Fault;
use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

/// Sizes of a logical block that the kernel takes (`target_core_configfs.c`, `block_size_store`).
const BLOCK_SIZES: [u32; 4] = [512, 1024, 2048, 4096];

/// These attributes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attributes {
    /// Whether it takes no writes, though its device does.
    pub read_only: bool,
    /// Bytes of a logical block, where they are not the device's.
    pub block_size: Option<u32>,
    /// Whether initiators see the backstore's name as its model, as of all that targetcli makes (`emulate_model_alias`).
    pub model_alias: bool,
}

impl fmt::Display for Attributes {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        let read_only = self.read_only.then(|| "readonly".to_string());
        let block_size = self.block_size.map(|bytes| format!("block_size={bytes}"));
        let model_alias = self.model_alias.then(|| "model_alias".to_string());
        let words: Vec<String> =
            [read_only, block_size, model_alias].into_iter().flatten().collect();
        out.write_str(&words.join(","))
    }
}

impl FromStr for Attributes {
    type Err = String;

    fn from_str(text: &str) -> Result<Attributes, String> {
        let mut attributes = Attributes::default();
        for word in text.split(',').filter(|word| !word.is_empty()) {
            let block_size = word.strip_prefix("block_size=").and_then(|text| text.parse().ok());
            match (word, block_size) {
                ("readonly", _) => attributes.read_only = true,
                ("model_alias", _) => attributes.model_alias = true,
                (_, Some(bytes)) if BLOCK_SIZES.contains(&bytes) => {
                    attributes.block_size = Some(bytes);
                }
                _ => return Err(format!("the attribute {word:?} of its backstore is unknown")),
            }
        }
        Ok(attributes)
    }
}

/// Those of a backstore that is there.
///
/// # Errors
/// One cannot be read, or is no number.
pub fn attributes(machine: &Machine, backstore: &Backstore) -> Result<Attributes, Fault> {
    let bytes = |name: &str| -> Result<u32, Fault> {
        let path = attribute(&backstore.at, name);
        let text = machine.read_required(&path)?;
        text.parse()
            .map_err(|_| Fault::generic(format!("{} is {text:?}, no number", path.display())))
    };
    let (block_size, own) = (bytes("block_size")?, bytes("hw_block_size")?);
    Ok(Attributes {
        read_only: backstore.read_only,
        block_size: (block_size != own).then_some(block_size),
        model_alias: bytes("emulate_model_alias")? != 0,
    })
}

/// Sets those that take a backstore with its device open, and no LUN over it yet.
pub(super) fn set(
    machine: &Machine,
    at: &BackstoreName,
    attributes: Attributes,
) -> Result<(), Fault> {
    if let Some(bytes) = attributes.block_size {
        machine.write_attribute(&attribute(at, "block_size"), &bytes.to_string())?;
    }
    if attributes.model_alias {
        machine.write_attribute(&attribute(at, "emulate_model_alias"), "1")?;
    }
    Ok(())
}

fn attribute(at: &BackstoreName, name: &str) -> PathBuf {
    Path::new(CORE).join(&at.hba).join(&at.name).join("attrib").join(name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attributes_are_the_same_behind_their_text() {
        for text in ["", "readonly", "block_size=4096", "readonly,block_size=1024,model_alias"] {
            assert_eq!(text.parse::<Attributes>().unwrap().to_string(), text);
        }
        for wrong in ["x", "block_size=", "block_size=4097", "block_size=512x", "readonly=1"] {
            let said = wrong.parse::<Attributes>().unwrap_err();
            assert_eq!(said, format!("the attribute {wrong:?} of its backstore is unknown"));
        }
    }

    #[test]
    fn attributes_are_read_and_set() {
        let root = std::env::temp_dir().join(format!("hasan-attributes-{}", std::process::id()));
        let machine = Machine::recorded(&root);
        let at = BackstoreName { hba: "iblock_7".to_string(), name: "x".to_string() };
        let put = |name: &str, value: &str| {
            machine.replace_file(&attribute(&at, name), value).unwrap();
        };
        put("hw_block_size", "512\n");
        put("block_size", "512\n");
        put("emulate_model_alias", "0\n");
        let mut backstore = Backstore {
            at: at.clone(),
            device: "/dev/zvol/p/x".into(),
            block: None,
            enabled: true,
            read_only: false,
            serial: String::new(),
        };
        assert_eq!(attributes(&machine, &backstore).unwrap(), Attributes::default());
        let wanted: Attributes = "block_size=4096,model_alias".parse().unwrap();
        set(&machine, &at, wanted).unwrap();
        backstore.read_only = true;
        let found = attributes(&machine, &backstore).unwrap();
        assert_eq!(found, Attributes { read_only: true, ..wanted });
        put("block_size", "many");
        let said = attributes(&machine, &backstore).unwrap_err().reason;
        assert!(said.ends_with("block_size is \"many\", no number"), "{said}");
        std::fs::remove_dir_all(root).unwrap();
    }
}

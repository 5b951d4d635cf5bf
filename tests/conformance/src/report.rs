//! What one tool said.

use crate::root::{Root, Said};
use anyhow::{Error, Result, ensure};

/// A tool, and how often it was asked.
pub(crate) struct Report {
    tool: String,
    /// How often it was asked.
    pub(crate) checks: usize,
    /// What was not as it should be.
    pub(crate) wrong: Vec<String>,
}

impl Report {
    /// Of a tool; the command tells its version.
    pub(crate) fn of(root: &Root, tool: &str, version: &str) -> Result<Report> {
        let said = root.run(version)?;
        let version = said.text.lines().next().unwrap_or_default().trim().to_string();
        ensure!(said.code == 0 && !version.is_empty(), "{tool} on {}: {said:?}", root.release);
        let tool = format!("{tool} {version} ({})", root.release);
        Ok(Report { tool, checks: 0, wrong: Vec::new() })
    }

    /// Of a tool in a package, whose version is the tool's.
    pub(crate) fn of_package(root: &Root, tool: &str, package: &str) -> Result<Report> {
        Report::of(
            root,
            tool,
            &format!("dpkg-query --show --showformat='${{Version}}\\n' {package}"),
        )
    }

    /// Of a tool that could not be asked to the end.
    pub(crate) fn unable(root: &Root, tool: &str, error: &Error) -> Report {
        let tool = format!("{tool} ({})", root.release);
        Report { tool, checks: 1, wrong: vec![format!("{error:#}")] }
    }

    /// Something that has to be so.
    pub(crate) fn check(&mut self, what: &str, is_so: bool, seen: &str) {
        self.checks += 1;
        if !is_so {
            self.wrong.push(format!("{what}: {}", seen.trim()));
        }
    }

    /// A command that has to end with this code, and to say these words.
    pub(crate) fn run(
        &mut self,
        root: &Root,
        command: &str,
        code: i32,
        words: &[&str],
    ) -> Result<Said> {
        let said = root.run(command)?;
        self.check(command, said.code == code, &format!("exit {}: {}", said.code, said.text));
        // Nothing is asked of a text by no word.
        for word in words.iter().filter(|word| !word.is_empty()) {
            self.check(
                command,
                said.text.contains(word),
                &format!("no {word:?} in: {}", said.text),
            );
        }
        Ok(said)
    }

    /// Commands, each with its code and what it has to say.
    pub(crate) fn run_each<C: AsRef<str>>(
        &mut self,
        root: &Root,
        cases: &[(C, i32, &str)],
    ) -> Result<()> {
        for (command, code, words) in cases {
            self.run(root, command.as_ref(), *code, &[words])?;
        }
        Ok(())
    }

    /// One line, and one for each thing that is wrong.
    pub(crate) fn print(&self) {
        println!("{}: {} checks, {} of them wrong", self.tool, self.checks, self.wrong.len());
        for wrong in &self.wrong {
            println!("  {wrong}");
        }
    }
}

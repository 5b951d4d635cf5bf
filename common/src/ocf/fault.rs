//! Exit codes and the one error type of the agents.

/// Exit codes of a resource agent (OCF Resource Agent API 1.1, "Exit status codes").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Rc {
    /// 0: done, or running.
    Success = 0,
    /// 1: something went wrong; soft, Pacemaker recovers.
    Generic = 1,
    /// 2: a parameter does not fit this node; hard, this node is banned.
    Arguments = 2,
    /// 3: the action is not implemented.
    Unimplemented = 3,
    /// 4: not permitted.
    Permission = 4,
    /// 5: a program is missing; hard, this node is banned.
    Installed = 5,
    /// 6: the configuration is wrong everywhere; fatal, every node is banned.
    Configured = 6,
    /// 7: proven not to run.
    NotRunning = 7,
    /// 190: runs, but weakened.
    Degraded = 190,
}

/// Why an action did not end well: the exit code, chosen where its meaning is known, and one
/// sentence for the administrator.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// What Pacemaker is told.
    pub rc: Rc,
    /// What the administrator is told: `cannot VERB OBJECT: cause`.
    pub reason: String,
}

impl Fault {
    /// A fault with this code and this sentence.
    pub fn new(rc: Rc, reason: impl Into<String>) -> Fault {
        Fault { rc, reason: reason.into() }
    }

    /// A soft error, code 1: Pacemaker recovers.
    pub fn generic(reason: impl Into<String>) -> Fault {
        Fault::new(Rc::Generic, reason)
    }
}

/// How an action ended.
pub type Outcome = Result<Rc, Fault>;

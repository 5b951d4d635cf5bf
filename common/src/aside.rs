//! Work that goes on beside whoever asks for it: a read or a program that can wait for a leg's I/O for ever.

use crate::machine::Machine;
use crate::ocf::Fault;
use std::sync::mpsc::{self, RecvTimeoutError, TryRecvError};
use std::time::Duration;

/// How long its programs may take: a vdev that changes its state holds up `zpool` for long.
const TIME: Duration = Duration::from_secs(120);

/// Something that goes on beside. Dropped, it goes on unheard.
pub struct Aside<T>(mpsc::Receiver<Result<T, Fault>>);

impl<T: Send + 'static> Aside<T> {
    /// Begins it, with two minutes for its programs.
    pub fn begin(
        machine: &Machine,
        work: impl FnOnce(&Machine) -> Result<T, Fault> + Send + 'static,
    ) -> Aside<T> {
        let (sender, receiver) = mpsc::channel();
        let machine = machine.with_time(TIME);
        std::thread::spawn(move || sender.send(work(&machine)));
        Aside(receiver)
    }

    /// What it led to; `None` while it goes on.
    pub fn result(&self) -> Option<Result<T, Fault>> {
        match self.0.try_recv() {
            Ok(result) => Some(result),
            Err(TryRecvError::Empty) => None,
            Err(TryRecvError::Disconnected) => Some(Err(ended())),
        }
    }

    /// The same, waited for; `None` if it goes on for longer.
    pub fn result_within(&self, at_most: Duration) -> Option<Result<T, Fault>> {
        match self.0.recv_timeout(at_most) {
            Ok(result) => Some(result),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => Some(Err(ended())),
        }
    }
}

fn ended() -> Fault {
    Fault::generic("a thread has ended without a word")
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn what_goes_on_beside_is_not_waited_for_and_its_end_is_heard_once() {
        let machine = Machine::local(Instant::now() + Duration::from_secs(30));
        let (go, may_go) = mpsc::channel();
        let aside = Aside::begin(&machine, move |_| {
            may_go.recv().map_err(|_| Fault::generic("nobody lets it go"))
        });
        assert!(aside.result().is_none());
        go.send(7).unwrap();
        let mut result = None;
        let is_over = machine.await_condition(TIME, || {
            result = aside.result();
            Ok(result.is_some())
        });
        assert!(is_over.unwrap());
        assert_eq!(result.unwrap().unwrap(), 7);
        assert!(aside.result().unwrap().unwrap_err().reason.contains("without a word"));
    }
}

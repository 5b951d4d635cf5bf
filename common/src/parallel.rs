//! The same for many things, several at once.

use std::sync::Mutex;

/// Does `work` for each item, so many at once at most. Returns the first error; items that were not begun by then are
/// left.
pub fn in_parallel<T: Sync, E: Send>(
    items: &[T],
    at_once: usize,
    work: impl Fn(&T) -> Result<(), E> + Sync,
) -> Result<(), E> {
    if items.len() < 2 {
        return items.iter().try_for_each(work);
    }
    let queue = Mutex::new((items.iter(), None));
    let next = || queue.lock().ok().and_then(|mut queue| queue.0.next());
    std::thread::scope(|scope| {
        for _ in 0..at_once.min(items.len()) {
            scope.spawn(|| {
                while let Some(item) = next() {
                    let Err(error) = work(item) else { continue };
                    if let Ok(mut queue) = queue.lock() {
                        queue.0 = [].iter();
                        queue.1.get_or_insert(error);
                    }
                }
            });
        }
    });
    queue.into_inner().ok().and_then(|queue| queue.1).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn all_items_are_worked_on_and_an_error_ends_it() {
        let items: Vec<u32> = (1..=100).collect();
        let sum = AtomicU32::new(0);
        let add = |item: &u32| {
            sum.fetch_add(*item, Ordering::Relaxed);
            if *item == 200 { Err(*item) } else { Ok(()) }
        };
        assert_eq!(in_parallel(&items, 8, add), Ok(()));
        assert_eq!(sum.swap(0, Ordering::Relaxed), 5050);
        assert_eq!(in_parallel(&[200], 8, add), Err(200));
        let begun = AtomicU32::new(0);
        let fail = |item: &u32| {
            begun.fetch_add(1, Ordering::Relaxed);
            Err::<(), u32>(*item)
        };
        assert!(in_parallel(&items, 4, fail).is_err());
        assert!(begun.load(Ordering::Relaxed) <= 4);
    }
}

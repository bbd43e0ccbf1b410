//! Running several futures of one task together.

use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

/// Runs all futures together and returns their results in the same order.
pub(crate) async fn join_all<'a, T>(
    futures: impl IntoIterator<Item = Pin<Box<dyn Future<Output = T> + 'a>>>,
) -> Vec<T> {
    let mut running: Vec<_> = futures.into_iter().map(Some).collect();
    let mut results: Vec<Option<T>> = running.iter().map(|_| None).collect();
    poll_fn(|context| {
        let mut pending = false;
        for (slot, result) in running.iter_mut().zip(&mut results) {
            if let Some(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => {
                        *result = Some(value);
                        *slot = None;
                    }
                    Poll::Pending => pending = true,
                }
            }
        }
        if pending {
            Poll::Pending
        } else {
            Poll::Ready(())
        }
    })
    .await;
    // Every slot is filled: the future above is ready only when nothing is pending.
    results.into_iter().flatten().collect()
}

/// A boxed future, to be given to [`join_all`].
pub(crate) fn boxed<'a, T>(
    future: impl Future<Output = T> + 'a,
) -> Pin<Box<dyn Future<Output = T> + 'a>> {
    Box::pin(future)
}

/// Runs all futures together until all have ended or `patience` with those that have not is over: `None` is their
/// result, and they are dropped. `patience` looks at the results whenever one more is there, and first at none of them;
/// it says how long to wait from then on, `None` for without end. A patience that it has said already runs on.
pub(crate) async fn join_with_patience<'a, T, S: Future<Output = ()>>(
    futures: impl IntoIterator<Item = Pin<Box<dyn Future<Output = T> + 'a>>>,
    patience: impl Fn(&[Option<T>]) -> Option<Duration>,
    sleep: impl Fn(Duration) -> S,
) -> Vec<Option<T>> {
    let mut running: Vec<_> = futures.into_iter().map(Some).collect();
    let mut results: Vec<Option<T>> = running.iter().map(|_| None).collect();
    let mut said = None;
    let mut timer: Option<Pin<Box<S>>> = None;
    let mut first = true;
    poll_fn(|context| {
        let mut pending = false;
        let mut news = std::mem::take(&mut first);
        for (slot, result) in running.iter_mut().zip(&mut results) {
            if let Some(future) = slot {
                match future.as_mut().poll(context) {
                    Poll::Ready(value) => {
                        *result = Some(value);
                        *slot = None;
                        news = true;
                    }
                    Poll::Pending => pending = true,
                }
            }
        }
        if !pending {
            return Poll::Ready(());
        }
        if news {
            let now = patience(&results);
            if now != said {
                said = now;
                timer = now.map(|duration| Box::pin(sleep(duration)));
            }
        }
        match &mut timer {
            Some(timer) => timer.as_mut().poll(context),
            None => Poll::Pending,
        }
    })
    .await;
    results
}

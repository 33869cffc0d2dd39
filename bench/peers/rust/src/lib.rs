//! The common parts of both peers: users, numbered events, and texts.

use std::collections::BTreeSet;
use std::os::fd::{FromRawFd, OwnedFd};
use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::sync::Mutex;

/// The present users, and the number of events so far.
#[derive(Default)]
pub struct Chat {
    users: Mutex<BTreeSet<String>>,
    last: AtomicU64,
}

impl Chat {
    /// Adds a user. Returns whether the user is new, and the response's body.
    pub fn join(&self, name: String) -> (bool, String) {
        let answer = format!("User {name} connected.");
        (self.users.lock().unwrap().insert(name), answer)
    }

    /// Returns the list of users.
    pub fn list(&self) -> String {
        let mut list = String::from("Connected users:");
        let users = self.users.lock().unwrap();
        if users.is_empty() {
            list.push('\n');
        }
        for name in users.iter() {
            list.push_str("\nUser: ");
            list.push_str(name);
        }
        list
    }

    /// Numbers an event.
    pub fn number(&self, text: String) -> Event {
        Event { id: (self.last.fetch_add(1, Relaxed) + 1).to_string(), text }
    }
}

/// One event, before it is rendered for a stream.
#[derive(Clone)]
pub struct Event {
    pub id: String,
    pub text: String,
}

/// The announcement of a new stream.
pub fn arrival(name: &str) -> String {
    format!("User {name} connected to the chat.")
}

/// Whether to announce new streams.
pub fn announces() -> bool {
    std::env::args().nth(1).is_some_and(|argument| argument == "announce")
}

/// The socket to listen on, which is descriptor 3.
pub fn listener() -> tokio::net::TcpListener {
    let listener = std::net::TcpListener::from(unsafe { OwnedFd::from_raw_fd(3) });
    listener.set_nonblocking(true).unwrap();
    tokio::net::TcpListener::from_std(listener).unwrap()
}

//! A cable between two ends of TCP, with a switch: it carries, hangs, is cut, or loses an answer.
#![allow(dead_code, reason = "each test file uses a part of it")]

use std::{
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

/// What the cable does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Mode {
    Carries,
    /// Nothing arrives, and nobody is told.
    Hangs,
    /// Every connection is closed, and so is each new one.
    IsCut,
    /// The next answer to a `COMMIT` is lost, and its connection with it. Then it carries again.
    LosesACommit,
    /// A `LISTEN` arrives as something that nobody understands.
    GarblesListening,
    /// The connection that next carries this many bytes to the server is cut there. Then it carries again.
    IsCutAfter(usize),
}

pub(crate) struct Proxy {
    pub(crate) port: u16,
    cable: Arc<Cable>,
}

struct Cable {
    target: u16,
    mode: Mutex<Mode>,
    ends: Mutex<Vec<TcpStream>>,
    over: AtomicBool,
    losses: AtomicUsize,
    /// Raised each time that the connections which are open hang for good.
    frozen: AtomicUsize,
}

impl Proxy {
    /// A cable to this port of the loopback interface.
    pub(crate) fn to(target: u16) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let port = listener.local_addr().expect("it is bound").port();
        let cable = Arc::new(Cable {
            target,
            mode: Mutex::new(Mode::Carries),
            ends: Mutex::default(),
            over: AtomicBool::new(false),
            losses: AtomicUsize::new(0),
            frozen: AtomicUsize::new(0),
        });
        let own = Arc::clone(&cable);
        thread::spawn(move || {
            for client in listener.incoming() {
                if own.over.load(Ordering::SeqCst) {
                    return;
                }
                if let Ok(client) = client {
                    own.carry(client);
                }
            }
        });
        Self { port, cable }
    }

    pub(crate) fn set(&self, mode: Mode) {
        *self.cable.mode() = mode;
        if mode == Mode::IsCut {
            self.cable.cut();
        }
    }

    /// Lets the connections that are open hang for good, as a firewall does that has forgotten them. New ones carry.
    pub(crate) fn forget_connections(&self) {
        self.cable.frozen.fetch_add(1, Ordering::SeqCst);
    }

    pub(crate) fn mode(&self) -> Mode {
        *self.cable.mode()
    }

    /// How often something was lost, cut or garbled on purpose, at one of its bytes.
    pub(crate) fn losses(&self) -> usize {
        self.cable.losses.load(Ordering::SeqCst)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.cable.over.store(true, Ordering::SeqCst);
        self.cable.cut();
        // Wakes whoever accepts.
        drop(TcpStream::connect(("127.0.0.1", self.port)));
    }
}

impl Cable {
    fn mode(&self) -> MutexGuard<'_, Mode> {
        self.mode.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn cut(&self) {
        for end in self.ends.lock().unwrap_or_else(PoisonError::into_inner).drain(..) {
            let _ = end.shutdown(Shutdown::Both);
        }
    }

    fn carry(self: &Arc<Self>, client: TcpStream) {
        if *self.mode() == Mode::IsCut {
            return;
        }
        let Ok(server) = TcpStream::connect(("127.0.0.1", self.target)) else {
            return;
        };
        for end in [&client, &server] {
            let _ = end.set_nodelay(true);
        }
        let (Ok(client_too), Ok(server_too)) = (client.try_clone(), server.try_clone()) else {
            return;
        };
        let copies = [client.try_clone(), server.try_clone()];
        self.ends
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .extend(copies.into_iter().flatten());
        let (there, back) = (Arc::clone(self), Arc::clone(self));
        thread::spawn(move || there.pump(client, server, true));
        thread::spawn(move || back.pump(server_too, client_too, false));
    }

    fn pump(&self, mut from: TcpStream, mut to: TcpStream, is_request: bool) {
        let mut bytes = vec![0; 64 * 1024];
        let mut carried = 0;
        let carried_at = self.frozen.load(Ordering::SeqCst) + 1;
        while let Ok(count @ 1..) = from.read(&mut bytes) {
            if is_request && *self.mode() == Mode::GarblesListening {
                let statement = bytes[..count].windows(7).position(|part| part == b"LISTEN ");
                if let Some(statement) = statement {
                    bytes[statement] = b'G';
                    self.losses.fetch_add(1, Ordering::SeqCst);
                }
            }
            let mut piece = &bytes[..count];
            while *self.mode() == Mode::Hangs && !self.over.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
            let mode = *self.mode();
            while carried_at <= self.frozen.load(Ordering::SeqCst) && !self.over.load(Ordering::SeqCst) {
                thread::sleep(Duration::from_millis(2));
            }
            let is_lost = match mode {
                // What is answered before it arrives.
                Mode::LosesACommit if !is_request => {
                    let answer = piece.windows(7).position(|part| part == b"COMMIT\0");
                    if let Some(answer) = answer {
                        let _ = to.write_all(&piece[..answer.saturating_sub(5)]);
                    }
                    answer.is_some()
                }
                Mode::IsCutAfter(most) if is_request && carried + count > most => {
                    piece = &piece[..most.saturating_sub(carried)];
                    let _ = to.write_all(piece);
                    true
                }
                _ => false,
            };
            if is_lost {
                self.losses.fetch_add(1, Ordering::SeqCst);
                *self.mode() = Mode::Carries;
                break;
            }
            if to.write_all(piece).is_err() {
                break;
            }
            carried += count;
        }
        let _ = from.shutdown(Shutdown::Both);
        let _ = to.shutdown(Shutdown::Both);
    }
}

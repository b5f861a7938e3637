//! An SQLite VFS that writes down what is asked of the disk.
//!
//! It stands before SQLite's own `unix` VFS, as the default one of this process. Files in a folder that is being
//! [recorded](record) do as always, and each write, sync, creation and deletion goes on the folder's [`Tape`]. Files in
//! a folder that is [thrown away](throw_away) afterwards are never synced, which only saves time. All others are left
//! alone.
//!
//! When a folder is synced is observed and not assumed: the `unix` VFS opens a folder for no other purpose. It is offered
//! no memory-mapped I/O, so nothing gets past the shim; the shared memory of the log's index is no part of what has to
//! survive, and is passed through.

use std::{
    cell::Cell,
    collections::HashMap,
    ffi::{CStr, c_char, c_int, c_void},
    mem,
    path::{Path, PathBuf},
    ptr, slice,
    sync::{Arc, Mutex, Once, OnceLock, PoisonError},
};

use bytes::Bytes;
use rusqlite::ffi::{
    SQLITE_FCNTL_PRAGMA, SQLITE_OK, sqlite3_file, sqlite3_io_methods, sqlite3_syscall_ptr, sqlite3_vfs,
    sqlite3_vfs_find, sqlite3_vfs_register,
};

use super::tape::{Event, FileId, Synchronous, Tape};

/// What becomes of the files in a folder.
#[derive(Clone)]
enum Watch {
    Recorded(Arc<Tape>),
    ThrownAway,
}

static WATCHED: Mutex<Option<HashMap<PathBuf, Watch>>> = Mutex::new(None);
static UNIX: OnceLock<Unix> = OnceLock::new();

/// SQLite's own VFS.
struct Unix {
    vfs: *mut sqlite3_vfs,
    open_folder: OpenFolder,
}

// SAFETY: SQLite's VFS objects are made to be used by all threads, and this one is never unregistered.
unsafe impl Send for Unix {}
// SAFETY: As above.
unsafe impl Sync for Unix {}

type OpenFolder = unsafe extern "C" fn(*const c_char, *mut c_int) -> c_int;

thread_local! {
    /// Whether the `unix` VFS has opened a folder on this thread, to sync it.
    static FOLDER_SYNCED: Cell<bool> = const { Cell::new(false) };
}

/// A folder under watch, until it's dropped.
pub(crate) struct Watching(PathBuf);

impl Drop for Watching {
    fn drop(&mut self) {
        watched(|folders| folders.remove(&self.0));
    }
}

/// From now on what SQLite does in `folder` goes on the tape. `folder` is absolute and without symbolic links.
pub(crate) fn record(folder: &Path, tape: Arc<Tape>) -> Watching {
    watch(folder, Watch::Recorded(tape))
}

/// From now on SQLite syncs nothing in `folder`.
pub(crate) fn throw_away(folder: &Path) -> Watching {
    watch(folder, Watch::ThrownAway)
}

fn watch(folder: &Path, watch: Watch) -> Watching {
    install();
    watched(|folders| folders.insert(folder.to_owned(), watch));
    Watching(folder.to_owned())
}

fn watched<T>(with: impl FnOnce(&mut HashMap<PathBuf, Watch>) -> T) -> T {
    let mut folders = WATCHED.lock().unwrap_or_else(PoisonError::into_inner);
    with(folders.get_or_insert_default())
}

/// Makes the shim the default VFS of this process.
fn install() {
    static INSTALLED: Once = Once::new();
    INSTALLED.call_once(|| {
        // SAFETY: The name is a C string. What is found lives as long as the process and is only read. The copy's
        // methods other than `xOpen` and `xDelete` are the `unix` VFS's own, which don't look at which VFS they are
        // called with. The system call is replaced, before any file is open, by one of the same signature.
        unsafe {
            let unix = sqlite3_vfs_find(c"unix".as_ptr());
            assert!(!unix.is_null(), "SQLite has no VFS for Unix");
            let get = (*unix).xGetSystemCall.expect("the VFS has it");
            let set = (*unix).xSetSystemCall.expect("the VFS has it");
            let open_folder = get(unix, c"openDirectory".as_ptr()).expect("there is such a call");
            let open_folder = mem::transmute::<unsafe extern "C" fn(), OpenFolder>(open_folder);
            assert!(
                UNIX.set(Unix {
                    vfs: unix,
                    open_folder
                })
                .is_ok()
            );
            let replaced = mem::transmute::<OpenFolder, unsafe extern "C" fn()>(see_folder_opened);
            let replaced: sqlite3_syscall_ptr = Some(replaced);
            assert_eq!(set(unix, c"openDirectory".as_ptr(), replaced), SQLITE_OK);

            let mut shim = *unix;
            let header = c_int::try_from(size_of::<ShimFile>()).expect("it is small");
            shim.szOsFile += header;
            shim.zName = c"recording".as_ptr();
            shim.pNext = ptr::null_mut();
            shim.xOpen = Some(open);
            shim.xDelete = Some(delete);
            assert_eq!(sqlite3_vfs_register(Box::leak(Box::new(shim)), 1), SQLITE_OK);
        }
    });
}

fn unix() -> &'static Unix {
    UNIX.get().expect("the shim is installed")
}

unsafe extern "C" fn see_folder_opened(path: *const c_char, descriptor: *mut c_int) -> c_int {
    FOLDER_SYNCED.set(true);
    // SAFETY: The arguments are passed on as they came.
    unsafe { (unix().open_folder)(path, descriptor) }
}

/// An open file: this, followed by the `unix` VFS's own.
#[repr(C, align(8))]
struct ShimFile {
    base: sqlite3_file,
    /// `None` where nothing is recorded.
    on_tape: *mut OnTape,
}

struct OnTape {
    tape: Arc<Tape>,
    file: FileId,
    /// Whether this handle has synced the file before.
    has_synced: Cell<bool>,
}

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    // Without the memory-mapped I/O of version 3.
    iVersion: 2,
    xClose: Some(close),
    xRead: Some(read),
    xWrite: Some(write),
    xTruncate: Some(truncate),
    xSync: Some(sync),
    xFileSize: Some(file_size),
    xLock: Some(lock),
    xUnlock: Some(unlock),
    xCheckReservedLock: Some(check_reserved_lock),
    xFileControl: Some(file_control),
    xSectorSize: Some(sector_size),
    xDeviceCharacteristics: Some(device_characteristics),
    xShmMap: Some(shm_map),
    xShmLock: Some(shm_lock),
    xShmBarrier: Some(shm_barrier),
    xShmUnmap: Some(shm_unmap),
    xFetch: None,
    xUnfetch: None,
};

/// How the folder of this path is watched, and the file's name in it.
///
/// # Safety
/// `path` is null or a C string.
unsafe fn look_up(path: *const c_char) -> Option<(Watch, PathBuf)> {
    if path.is_null() {
        return None;
    }
    // SAFETY: Promised by the caller.
    let path = unsafe { CStr::from_ptr(path) }.to_str().ok()?;
    let path = Path::new(path);
    let watch = watched(|folders| folders.get(path.parent()?).cloned())?;
    Some((watch, path.to_owned()))
}

fn name(path: &Path) -> &str {
    path.file_name()
        .and_then(|name| name.to_str())
        .unwrap_or_default()
}

unsafe extern "C" fn open(
    _: *mut sqlite3_vfs,
    path: *const c_char,
    file: *mut sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    let unix = unix().vfs;
    // SAFETY: SQLite passes a C string or null, and room for `szOsFile` bytes, aligned for anything: for a `ShimFile` and
    // the inner file behind it.
    unsafe {
        let inner_open = (*unix).xOpen.expect("every VFS has it");
        let Some((watch, path_name)) = look_up(path) else {
            return inner_open(unix, path, file, flags, out_flags);
        };
        let shim = file.cast::<ShimFile>();
        (*shim).base.pMethods = ptr::null();
        (*shim).on_tape = ptr::null_mut();
        let opened = match watch {
            Watch::ThrownAway => inner_open(unix, path, inner(file), flags, out_flags),
            Watch::Recorded(tape) => {
                let mut state = tape.state();
                let is_new = !path_name.exists();
                let opened = inner_open(unix, path, inner(file), flags, out_flags);
                if opened == SQLITE_OK {
                    let file = if is_new {
                        state.create(name(&path_name))
                    } else {
                        state.file(name(&path_name))
                    };
                    drop(state);
                    (*shim).on_tape = Box::into_raw(Box::new(OnTape {
                        tape,
                        file,
                        has_synced: Cell::new(false),
                    }));
                }
                opened
            }
        };
        if opened == SQLITE_OK {
            (*shim).base.pMethods = &METHODS;
        }
        opened
    }
}

unsafe extern "C" fn delete(_: *mut sqlite3_vfs, path: *const c_char, sync_folder: c_int) -> c_int {
    let unix = unix().vfs;
    // SAFETY: SQLite passes a C string; the arguments are passed on as they came.
    unsafe {
        let inner_delete = (*unix).xDelete.expect("every VFS has it");
        match look_up(path) {
            None => inner_delete(unix, path, sync_folder),
            Some((Watch::ThrownAway, _)) => inner_delete(unix, path, 0),
            Some((Watch::Recorded(tape), path_name)) => {
                let mut state = tape.state();
                FOLDER_SYNCED.set(false);
                let deleted = inner_delete(unix, path, sync_folder);
                if deleted == SQLITE_OK {
                    state.delete(name(&path_name));
                    if FOLDER_SYNCED.get() {
                        state.events.push(Event::FolderSynced);
                    }
                }
                deleted
            }
        }
    }
}

/// The `unix` VFS's file.
///
/// # Safety
/// `file` has been opened by [`open`].
unsafe fn inner(file: *mut sqlite3_file) -> *mut sqlite3_file {
    // SAFETY: The caller promises that the inner file follows the shim's.
    unsafe { file.cast::<ShimFile>().add(1).cast() }
}

/// Where the file is recorded.
///
/// # Safety
/// `file` has been opened by [`open`] and is not closed while the result is in use.
unsafe fn on_tape<'a>(file: *mut sqlite3_file) -> Option<&'a OnTape> {
    // SAFETY: The pointer is null or comes from a box, and lives until the file is closed.
    unsafe { (*file.cast::<ShimFile>()).on_tape.as_ref() }
}

unsafe extern "C" fn close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once, after its last use.
    unsafe {
        let shim = file.cast::<ShimFile>();
        if !(*shim).on_tape.is_null() {
            drop(Box::from_raw((*shim).on_tape));
        }
        let inner = inner(file);
        (*(*inner).pMethods).xClose.expect("every file has it")(inner)
    }
}

unsafe extern "C" fn write(file: *mut sqlite3_file, bytes: *const c_void, size: c_int, offset: i64) -> c_int {
    // SAFETY: The file is open, and SQLite passes `size` bytes.
    unsafe {
        let recorded = on_tape(file);
        if let Some(OnTape { tape, .. }) = recorded {
            tape.pass_gate();
        }
        let inner = inner(file);
        let written = (*(*inner).pMethods).xWrite.expect("every file has it")(inner, bytes, size, offset);
        if let Some(&OnTape { ref tape, file, .. }) = recorded {
            assert_eq!(written, SQLITE_OK, "the disk under this test failed");
            let bytes = slice::from_raw_parts(bytes.cast(), size.try_into().expect("a size"));
            tape.push(Event::Written {
                file,
                offset: offset.try_into().expect("an offset"),
                bytes: Bytes::copy_from_slice(bytes),
            });
        }
        written
    }
}

unsafe extern "C" fn truncate(file: *mut sqlite3_file, size: i64) -> c_int {
    // SAFETY: The file is open.
    unsafe {
        let inner = inner(file);
        let resized = (*(*inner).pMethods).xTruncate.expect("every file has it")(inner, size);
        if let Some(&OnTape { ref tape, file, .. }) = on_tape(file) {
            assert_eq!(resized, SQLITE_OK, "the disk under this test failed");
            tape.push(Event::Resized {
                file,
                size: size.try_into().expect("a size"),
            });
        }
        resized
    }
}

unsafe extern "C" fn sync(file: *mut sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: The file is open.
    unsafe {
        let Some(OnTape {
            tape,
            file: id,
            has_synced,
        }) = on_tape(file)
        else {
            return SQLITE_OK;
        };
        let id = *id;
        let begun = {
            let mut state = tape.state();
            state.events.push(Event::SyncBegun { file: id });
            state.events.len()
        };
        FOLDER_SYNCED.set(false);
        // The first sync of a handle is done, to see whether the folder is synced with it. The others would only cost
        // time: nobody cuts this machine's power.
        if !has_synced.replace(true) {
            let inner = inner(file);
            let synced = (*(*inner).pMethods).xSync.expect("every file has it")(inner, flags);
            assert_eq!(synced, SQLITE_OK, "the disk under this test failed");
        }
        tape.push(Event::Synced { file: id, begun });
        if FOLDER_SYNCED.get() {
            tape.push(Event::FolderSynced);
        }
        SQLITE_OK
    }
}

unsafe extern "C" fn file_control(file: *mut sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: The file is open. With this operation SQLite passes an array of strings: its answer, the pragma's name, and
    // the pragma's argument or null, the last in memory of its own that it goes on reading after this call.
    unsafe {
        if let Some(OnTape { tape, .. }) = on_tape(file)
            && tape.synchronous == Synchronous::Normal
            && op == SQLITE_FCNTL_PRAGMA
        {
            let strings = argument.cast::<*mut c_char>();
            let (pragma, value) = (*strings.add(1), *strings.add(2));
            let is = |text: *const c_char, what: &CStr| !text.is_null() && CStr::from_ptr(text) == what;
            if is(pragma, c"synchronous") && is(value, c"FULL") {
                // The number of `NORMAL`, which is no longer than the word.
                ptr::copy_nonoverlapping(c"1".as_ptr(), value, 2);
                tape.state().lowered += 1;
            }
        }
        let inner = inner(file);
        (*(*inner).pMethods).xFileControl.expect("every file has it")(inner, op, argument)
    }
}

/// Methods that only pass on.
macro_rules! pass_on {
    ($($name:ident = $method:ident($($argument:ident: $kind:ty),*) $(-> $answer:ty)?;)*) => {
        $(unsafe extern "C" fn $name(file: *mut sqlite3_file $(, $argument: $kind)*) $(-> $answer)? {
            // SAFETY: The file is open, and the arguments are passed on as they came.
            unsafe {
                let inner = inner(file);
                (*(*inner).pMethods).$method.expect("the `unix` VFS has it")(inner $(, $argument)*)
            }
        })*
    };
}
pass_on! {
    read = xRead(buffer: *mut c_void, size: c_int, offset: i64) -> c_int;
    file_size = xFileSize(size: *mut i64) -> c_int;
    lock = xLock(level: c_int) -> c_int;
    unlock = xUnlock(level: c_int) -> c_int;
    check_reserved_lock = xCheckReservedLock(answer: *mut c_int) -> c_int;
    sector_size = xSectorSize() -> c_int;
    device_characteristics = xDeviceCharacteristics() -> c_int;
    shm_map = xShmMap(region: c_int, size: c_int, extend: c_int, memory: *mut *mut c_void) -> c_int;
    shm_lock = xShmLock(offset: c_int, count: c_int, flags: c_int) -> c_int;
    shm_barrier = xShmBarrier();
    shm_unmap = xShmUnmap(delete: c_int) -> c_int;
}

//! Which player a name stands for: the same one wherever the name is given.

use bevy_player_data::PlayerId;

/// The longest name, in bytes.
pub const NAME_LIMIT: usize = 24;

/// The player with this name.
///
/// # Errors
/// What is wrong with the name, if nobody can be called that.
pub fn player_named(name: &str) -> Result<PlayerId, String> {
    if name.is_empty() || name.len() > NAME_LIMIT {
        return Err(format!("a name has 1 to {NAME_LIMIT} characters"));
    }
    if !name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"-_".contains(&byte))
    {
        return Err("a name is made of letters and digits (A to Z, a to z, 0 to 9), `-` and `_`".to_owned());
    }
    Ok(PlayerId::from_name(name))
}

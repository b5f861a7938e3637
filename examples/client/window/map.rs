//! The whole field at a glance, a pixel for each cell.

use bevy::{
    asset::RenderAssetUsages,
    color::ColorToPacked,
    prelude::*,
    render::render_resource::{Extent3d, TextureDimension, TextureFormat},
};

use super::{
    field::{MyTag, Seen},
    theme::{self, color_of},
};
use crate::game::{data::Cell, net::FIELD};

const BYTES: usize = 4;

/// What the map is drawn on.
#[derive(Resource)]
pub struct Map(pub Handle<Image>);

impl FromWorld for Map {
    fn from_world(world: &mut World) -> Self {
        let size = Extent3d {
            width: FIELD.x.into(),
            height: FIELD.y.into(),
            depth_or_array_layers: 1,
        };
        let ground = theme::RAISED.to_srgba().to_u8_array();
        let image = Image::new_fill(
            size,
            TextureDimension::D2,
            &ground,
            TextureFormat::Rgba8UnormSrgb,
            RenderAssetUsages::default(),
        );
        Self(world.resource_mut::<Assets<Image>>().add(image))
    }
}

/// Draws what everybody sees, and the player in white.
pub fn draw(map: Res<Map>, seen: Res<Seen>, my_tag: Option<Res<MyTag>>, mut images: ResMut<Assets<Image>>) {
    let Some(mut image) = images.get_mut(&map.0) else {
        return;
    };
    let Some(pixels) = &mut image.data else { return };
    for pixel in pixels.chunks_mut(BYTES) {
        pixel.copy_from_slice(&theme::RAISED.to_srgba().to_u8_array());
    }
    let mut dot = |Cell { x, y }: Cell, color: Color| {
        let at = (usize::from(y) * usize::from(FIELD.x) + usize::from(x)) * BYTES;
        if let Some(pixel) = pixels.get_mut(at..at + BYTES) {
            pixel.copy_from_slice(&color.to_srgba().to_u8_array());
        }
    };
    for &find in &seen.0.finds {
        dot(find, theme::GOLD.darker(0.25));
    }
    for player in &seen.0.players {
        dot(player.cell, color_of(player.color));
    }
    // On top of everybody else.
    let is_me = |tag: u32| my_tag.as_ref().is_some_and(|mine| mine.0 == tag);
    for player in seen.0.players.iter().filter(|player| is_me(player.tag)) {
        dot(player.cell, Color::WHITE);
    }
}

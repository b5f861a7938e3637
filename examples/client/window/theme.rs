//! What everything looks like: colors, fonts, pictures, and the few widgets that the rest of the window is made of.
//!
//! Text is at least 4.5 times as bright as what it stands on (WCAG's AA). Sizes are those of a window of 800 × 600; a
//! larger window shows the same, larger.

use bevy::{
    input_focus::{
        InputFocus, InputFocusVisible,
        tab_navigation::{TabGroup, TabIndex},
    },
    picking::hover::Hovered,
    prelude::*,
    text::FontSize,
    ui::{InteractionDisabled, Pressed, UiScale},
    ui_widgets::Button,
    window::WindowResized,
};

use crate::game::data::{Item, Paint};

/// Behind everything.
pub const INK: Color = Color::srgb_u8(0x14, 0x16, 0x24);
/// What panels are made of.
pub const PANEL: Color = Color::srgb_u8(0x1e, 0x22, 0x35);
/// What lies on a panel: slots, rows, quiet buttons.
pub const RAISED: Color = Color::srgb_u8(0x2c, 0x32, 0x4c);
/// The edges of panels and slots.
pub const EDGE: Color = Color::srgb_u8(0x46, 0x4e, 0x72);
pub const TEXT: Color = Color::srgb_u8(0xf4, 0xf1, 0xe6);
/// Text that matters less.
pub const MUTED: Color = Color::srgb_u8(0xb3, 0xb9, 0xd2);
pub const GOLD: Color = Color::srgb_u8(0xff, 0xd3, 0x4d);
pub const GOOD: Color = Color::srgb_u8(0x7d, 0xdc, 0x9a);
pub const CAREFUL: Color = Color::srgb_u8(0xff, 0xb8, 0x5c);
pub const BAD: Color = Color::srgb_u8(0xff, 0x8a, 0x80);
/// Around what the keyboard acts on.
pub const FOCUS: Color = Color::srgb_u8(0x8c, 0xcb, 0xff);
/// Dims what can't be used now.
pub const SCRIM: Color = Color::srgba(0.04, 0.05, 0.09, 0.78);

pub const SMALL: f32 = 13.0;
pub const BODY: f32 = 15.0;
pub const LARGE: f32 = 20.0;
pub const HUGE: f32 = 28.0;

/// The smallest window that all of it fits into.
pub const SMALLEST: Vec2 = Vec2::new(800.0, 600.0);

pub fn plugin(app: &mut App) {
    app.init_resource::<Theme>()
        .add_systems(PreUpdate, fit_window.run_if(on_message::<WindowResized>))
        .add_systems(PostUpdate, (paint_buttons, ring_focus));
}

/// Fonts and pictures.
#[derive(Resource, Clone)]
pub struct Theme {
    regular: Handle<Font>,
    bold: Handle<Font>,
    pub field: Handle<Image>,
    pub player: Handle<Image>,
    pub shadow: Handle<Image>,
    pub coin: Handle<Image>,
    pub relic: Handle<Image>,
    apple: Handle<Image>,
    horseshoe: Handle<Image>,
    gem: Handle<Image>,
}

impl FromWorld for Theme {
    fn from_world(world: &mut World) -> Self {
        let assets = world.resource::<AssetServer>();
        Self {
            regular: assets.load("fonts/Inter-Regular.otf"),
            bold: assets.load("fonts/Inter-Bold.otf"),
            field: assets.load("art/field.png"),
            player: assets.load("art/player.png"),
            shadow: assets.load("art/shadow.png"),
            coin: assets.load("art/coin.png"),
            relic: assets.load("art/relic.png"),
            apple: assets.load("art/apple.png"),
            horseshoe: assets.load("art/horseshoe.png"),
            gem: assets.load("art/gem.png"),
        }
    }
}

impl Theme {
    pub fn regular(&self, size: f32) -> TextFont {
        TextFont::from(self.regular.clone()).with_font_size(FontSize::Px(size))
    }

    pub fn bold(&self, size: f32) -> TextFont {
        TextFont::from(self.bold.clone()).with_font_size(FontSize::Px(size))
    }

    /// A paragraph.
    pub fn text(&self, words: impl Into<String>, size: f32, color: Color) -> impl Bundle {
        (Text::new(words), self.regular(size), TextColor(color))
    }

    /// A heading, or a number that matters.
    pub fn heading(&self, words: impl Into<String>, size: f32, color: Color) -> impl Bundle {
        (Text::new(words), self.bold(size), TextColor(color))
    }

    /// A button, which triggers `Activate` by mouse, Enter and Space.
    pub fn button(&self, words: impl Into<String>, look: Look) -> impl Bundle {
        (
            Node {
                min_height: px(36),
                padding: UiRect::axes(px(14), px(6)),
                border: px(1).all(),
                border_radius: BorderRadius::all(px(6)),
                justify_content: JustifyContent::Center,
                align_items: AlignItems::Center,
                ..default()
            },
            Button,
            look,
            Hovered::default(),
            TabIndex(0),
            BackgroundColor::default(),
            BorderColor::default(),
            children![(
                Text::new(words),
                self.bold(BODY),
                TextColor(TEXT),
                TextLayout::no_wrap()
            )],
        )
    }

    pub fn picture_of(&self, item: Item) -> Handle<Image> {
        match item {
            Item::Apple => &self.apple,
            Item::Horseshoe => &self.horseshoe,
            Item::Gem => &self.gem,
        }
        .clone()
    }
}

/// A picture in the pixels that it was drawn in, twice as large.
pub fn picture(image: Handle<Image>) -> impl Bundle {
    let node = Node {
        width: px(32),
        height: px(32),
        flex_shrink: 0.0,
        ..default()
    };
    (node, ImageNode::new(image))
}

/// A panel, whose contents stand below each other.
pub fn panel() -> (Node, BackgroundColor, BorderColor) {
    let node = Node {
        flex_direction: FlexDirection::Column,
        padding: px(16).all(),
        row_gap: px(12),
        border: px(1).all(),
        border_radius: BorderRadius::all(px(10)),
        ..default()
    };
    (node, BackgroundColor(PANEL), BorderColor::all(EDGE))
}

/// Covers the whole window in [`SCRIM`], and keeps the mouse from what lies below.
pub fn scrim() -> Node {
    Node {
        position_type: PositionType::Absolute,
        left: px(0),
        top: px(0),
        width: percent(100),
        height: percent(100),
        justify_content: JustifyContent::Center,
        align_items: AlignItems::Center,
        padding: px(24).all(),
        ..default()
    }
}

/// In which color a player is shown.
pub const fn color_of(paint: Paint) -> Color {
    match paint {
        Paint::Red => Color::srgb_u8(0xff, 0x8f, 0x85),
        Paint::Green => Color::srgb_u8(0x8f, 0xe0, 0x8a),
        Paint::Blue => Color::srgb_u8(0x8c, 0xb8, 0xff),
        Paint::Magenta => Color::srgb_u8(0xf0, 0x9c, 0xf5),
        Paint::Cyan => Color::srgb_u8(0x84, 0xe6, 0xea),
    }
}

/// Has the keyboard to itself: Tab and the arrows stay within it, and the field hears of no key.
#[derive(Component, Default)]
#[require(TabGroup::modal())]
pub struct Modal;

/// How much a button wants to be pressed.
#[derive(Component, Clone, Copy, Debug, PartialEq, Eq)]
pub enum Look {
    /// What one most likely wants.
    Primary,
    /// The alternative.
    Quiet,
}

impl Look {
    /// The colors of a button: what it is made of, its edge, and its words.
    const fn colors(self, is_hovered: bool, is_pressed: bool) -> (Color, Color, Color) {
        match (self, is_hovered, is_pressed) {
            (Self::Primary, _, true) => (Color::srgb_u8(0xe0, 0xae, 0x2c), GOLD, INK),
            (Self::Primary, true, false) => (Color::srgb_u8(0xff, 0xe2, 0x8a), GOLD, INK),
            (Self::Primary, false, false) => (GOLD, GOLD, INK),
            (Self::Quiet, _, true) => (PANEL, MUTED, TEXT),
            (Self::Quiet, true, false) => (Color::srgb_u8(0x3a, 0x42, 0x62), MUTED, TEXT),
            (Self::Quiet, false, false) => (RAISED, EDGE, TEXT),
        }
    }
}

fn fit_window(windows: Query<&Window>, mut scale: ResMut<UiScale>) {
    for window in &windows {
        let room = window.size() / (SMALLEST * 1.15);
        scale.0 = room.min_element().clamp(1.0, 3.0);
    }
}

type ButtonLook = (
    &'static Look,
    &'static Hovered,
    Has<Pressed>,
    Has<InteractionDisabled>,
    &'static Children,
    &'static mut BackgroundColor,
    &'static mut BorderColor,
);

fn paint_buttons(mut buttons: Query<ButtonLook, With<Button>>, mut texts: Query<&mut TextColor>) {
    for (look, hovered, is_pressed, is_disabled, children, mut body, mut edge) in &mut buttons {
        let (ground, border, words) = if is_disabled {
            (PANEL, EDGE, MUTED)
        } else {
            look.colors(hovered.get(), is_pressed)
        };
        body.set_if_neq(BackgroundColor(ground));
        edge.set_if_neq(BorderColor::all(border));
        for &child in children {
            if let Ok(mut color) = texts.get_mut(child) {
                color.set_if_neq(TextColor(words));
            }
        }
    }
}

/// Shows what Enter would press, once the keyboard is used for that.
fn ring_focus(
    focus: Res<InputFocus>,
    is_visible: Res<InputFocusVisible>,
    buttons: Query<(Entity, Option<&Outline>), With<Button>>,
    mut commands: Commands,
) {
    let focused = focus.get().filter(|_| is_visible.0);
    for (button, outline) in &buttons {
        match (Some(button) == focused, outline.is_some()) {
            (true, false) => {
                let ring = Outline::new(px(3), px(2), FOCUS);
                commands.entity(button).insert(ring);
            }
            (false, true) => {
                commands.entity(button).remove::<Outline>();
            }
            _ => {}
        }
    }
}

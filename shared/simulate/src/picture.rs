//! Curves as a picture: four panels over the same time, a line for each variant.
//!
//! SVG, written by hand: lines, ticks and words are all that is needed, and a plotting library would be larger than the
//! simulator. Colours are those of Okabe and Ito ("Color Universal Design", 2008), which the colour-blind can tell apart.

use std::fmt::Write;

use crate::report::{Curve, Point};

const WIDTH: f64 = 960.0;
const PANEL_WIDTH: f64 = 380.0;
const PANEL_HEIGHT: f64 = 190.0;
const LEFT: f64 = 72.0;
const GAP_X: f64 = 480.0;
const GAP_Y: f64 = 262.0;
const LEGEND_LINE: f64 = 20.0;
const TOP: f64 = 44.0;
/// What a letter of the legend takes at most, nearly always.
const LETTER: f64 = 7.4;
const COLOURS: [&str; 8] =
    ["#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#333333", "#999999"];
/// Past the last colour they begin again, with another stroke.
const DASHES: [&str; 2] = ["", " stroke-dasharray=\"6 3\""];
const TICKS_MAX: f64 = 5.0;

type Panel = (&'static str, fn(&Point) -> f64);

const PANELS: [Panel; 4] = [
    ("retries a second", |point| point.retries_per_s),
    ("calls a second at the dependency", |point| point.calls_per_s),
    ("tasks begun and not over", |point| f64::from(point.backlog)),
    ("tasks recovered so far", |point| point.recovered as f64),
];

/// Draws an SVG document with these lines, each with its name.
pub fn draw(title: &str, lines: &[(String, &Curve)]) -> String {
    let (legend, legend_height) = legend(lines);
    let top = TOP + legend_height;
    let height = top + 2.0 * GAP_Y;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" height=\"{height}\" \
         font-family=\"sans-serif\" font-size=\"12\">\n<title>{title}</title>\n\
         <rect width=\"100%\" height=\"100%\" fill=\"#ffffff\"/>\n\
         <text x=\"{LEFT}\" y=\"26\" font-size=\"16\" font-weight=\"bold\">{title}</text>\n{legend}",
        title = escaped(title),
    );
    let end_ms = lines.iter().map(|(_, curve)| end_ms(curve)).fold(0.0, f64::max);
    for (index, panel) in PANELS.iter().enumerate() {
        let x = LEFT + GAP_X * (index % 2) as f64;
        let y = top + 30.0 + GAP_Y * (index / 2) as f64;
        let _ = writeln!(svg, "<g transform=\"translate({x} {y})\">");
        draw_panel(&mut svg, panel, lines, end_ms);
        svg.push_str("</g>\n");
    }
    svg.push_str("</svg>\n");
    svg
}

fn end_ms(curve: &Curve) -> f64 {
    curve.points.last().map_or(0.0, |point| (point.at_ms + curve.bucket_ms) as f64)
}

fn legend(lines: &[(String, &Curve)]) -> (String, f64) {
    let mut svg = String::new();
    let (mut x, mut y) = (LEFT, TOP + 6.0);
    for (index, (name, _)) in lines.iter().enumerate() {
        let width = 40.0 + LETTER * name.chars().count() as f64;
        if x > LEFT && x + width > WIDTH {
            (x, y) = (LEFT, y + LEGEND_LINE);
        }
        let _ = writeln!(
            svg,
            "<path d=\"M{x:.0} {:.0}h20\" fill=\"none\" {}/><text x=\"{:.0}\" y=\"{y:.0}\">{}</text>",
            y - 4.0,
            stroke(index),
            x + 26.0,
            escaped(name),
        );
        x += width;
    }
    (svg, y - TOP + 8.0)
}

fn stroke(index: usize) -> String {
    let (colour, dash) = (COLOURS[index % COLOURS.len()], DASHES[index / COLOURS.len() % DASHES.len()]);
    format!("stroke=\"{colour}\" stroke-width=\"1.6\"{dash}")
}

fn draw_panel(svg: &mut String, (name, of): &Panel, lines: &[(String, &Curve)], end_ms: f64) {
    let values = lines.iter().flat_map(|(_, curve)| curve.points.iter().map(of));
    let (step, most) = ticks(values.fold(0.0, f64::max));
    let (unit, unit_ms) = unit(end_ms);
    let (step_x, most_x) = ticks(end_ms / unit_ms);
    let _ = writeln!(svg, "<text y=\"-10\" font-weight=\"bold\">{name}</text>");
    for tick in steps(step, most) {
        let y = PANEL_HEIGHT * (1.0 - tick / most);
        let _ = writeln!(
            svg,
            "<path d=\"M0 {y:.1}H{PANEL_WIDTH}\" stroke=\"#dddddd\"/>\
             <text x=\"-8\" y=\"{:.1}\" text-anchor=\"end\">{}</text>",
            y + 4.0,
            short(tick),
        );
    }
    for tick in steps(step_x, most_x) {
        let x = PANEL_WIDTH * tick / most_x;
        let _ = writeln!(
            svg,
            "<text x=\"{x:.1}\" y=\"{}\" text-anchor=\"middle\">{} {unit}</text>",
            PANEL_HEIGHT + 18.0,
            short(tick),
        );
    }
    let _ = writeln!(svg, "<path d=\"M0 0V{PANEL_HEIGHT}H{PANEL_WIDTH}\" fill=\"none\" stroke=\"#333333\"/>");
    for (index, (_, curve)) in lines.iter().enumerate() {
        let mut path = String::new();
        for point in &curve.points {
            let middle_ms = point.at_ms as f64 + curve.bucket_ms as f64 / 2.0;
            let (x, y) =
                (middle_ms / unit_ms / most_x * PANEL_WIDTH, PANEL_HEIGHT * (1.0 - of(point) / most));
            let _ = write!(path, "{}{x:.1} {y:.1}", if path.is_empty() { "M" } else { "L" });
        }
        let _ =
            writeln!(svg, "<path d=\"{path}\" fill=\"none\" stroke-linejoin=\"round\" {}/>", stroke(index));
    }
}

/// The distance between ticks (1, 2 or 5 times a power of ten) and the end of the axis, a multiple of it.
fn ticks(most: f64) -> (f64, f64) {
    if most <= 0.0 {
        return (1.0, 1.0);
    }
    let power = 10_f64.powf((most / TICKS_MAX).log10().floor());
    let fits = |factor: &&f64| **factor * power * TICKS_MAX >= most;
    let step = power * [1.0, 2.0, 5.0].iter().find(fits).unwrap_or(&10.0);
    (step, (most / step).ceil() * step)
}

fn steps(step: f64, most: f64) -> impl Iterator<Item = f64> {
    (0..=(most / step).round() as u32).map(move |index| f64::from(index) * step)
}

fn unit(end_ms: f64) -> (&'static str, f64) {
    match end_ms {
        ms if ms < 180_000.0 => ("s", 1_000.0),
        ms if ms < 10_800_000.0 => ("min", 60_000.0),
        _ => ("h", 3_600_000.0),
    }
}

fn short(value: f64) -> String {
    match value {
        value if value >= 1_000_000.0 => format!("{} M", value / 1_000_000.0),
        value if value >= 10_000.0 => format!("{} k", value / 1_000.0),
        // Multiples of a tenth are not exact: six decimals are, for every tick there is.
        value => format!("{value:.6}").trim_end_matches('0').trim_end_matches('.').to_owned(),
    }
}

fn escaped(text: &str) -> String {
    let mut escaped = String::new();
    for letter in text.chars() {
        match letter {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            // XML has no room for the others.
            letter if letter.is_control() => escaped.push(' '),
            letter => escaped.push(letter),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ticks_are_round_and_few() {
        for (most, step, end) in
            [(0.7, 0.2, 0.8), (7.0, 2.0, 8.0), (23.0, 5.0, 25.0), (999.0, 200.0, 1_000.0), (0.0, 1.0, 1.0)]
        {
            let (found_step, found_end) = ticks(most);
            assert!((found_step - step).abs() < 1e-9 && (found_end - end).abs() < 1e-9, "{most}");
        }
    }

    #[test]
    fn every_line_is_drawn_in_every_panel_and_names_cannot_break_out() {
        let point = Point { at_ms: 0, calls_per_s: 2.0, retries_per_s: 1.0, backlog: 3, recovered: 4 };
        let curve = Curve { bucket_ms: 10, points: vec![point, Point { at_ms: 10, ..point }] };
        let lines = [("a & b".to_owned(), &curve), ("</text><script>".to_owned(), &curve)];
        let svg = draw("one < two", &lines);
        assert_eq!(svg.matches("stroke-linejoin").count(), 8);
        assert!(svg.contains("a &amp; b") && svg.contains("one &lt; two") && !svg.contains("<script>"));
        assert!(!svg.contains("NaN") && !svg.contains("inf"));
    }

    #[test]
    fn a_picture_of_nothing_is_a_picture() {
        let curve = Curve::default();
        let svg = draw("nothing", &[("none".to_owned(), &curve)]);
        assert!(svg.ends_with("</svg>\n") && !svg.contains("NaN"));
    }
}

//! What the first page says of the image, in the words of those whose readers look for it.

use std::fmt::Write as _;

use super::options::PyramidOptions;
use crate::geometry::Extent;

/// What Aperio's scanners write, as far as readers look at it: of the finest level, or of a page reduced to an extent.
pub(super) fn aperio(options: &PyramidOptions, finest: Extent, reduced: Option<Extent>) -> String {
    let mut text = format!("Aperio Image\r\n{}x{}", finest.width, finest.height);
    // Writing to a string cannot fail.
    if let Some(Extent { height, width }) = reduced {
        let _ = write!(text, " -> {width}x{height}");
    }
    if let Some(power) = options.objective_power {
        let _ = write!(text, "|AppMag = {power}");
    }
    if let Some(edge) = options.microns_per_pixel {
        let _ = write!(text, "|MPP = {}", edge.get());
    }
    text
}

/// OME's metadata of one image, after its schema of 2016-06, whose unit of physical sizes is the micron.
pub(super) fn ome_xml(options: &PyramidOptions, finest: Extent, sample: (u16, u16)) -> String {
    let Extent { height, width } = finest;
    let channels = options.color.channels();
    let kind = match sample {
        (32, _) => "float",
        (16, _) => "uint16",
        _ => "uint8",
    };
    let size = options.microns_per_pixel.map_or_else(String::new, |edge| {
        let edge = edge.get();
        format!(" PhysicalSizeX=\"{edge}\" PhysicalSizeY=\"{edge}\"")
    });
    let (instrument, settings) = options
        .objective_power
        .map_or_else(Default::default, |power| {
            (
                format!(
                    "<Instrument ID=\"Instrument:0\">\
                 <Objective ID=\"Objective:0:0\" NominalMagnification=\"{power}\"/></Instrument>"
                ),
                "<InstrumentRef ID=\"Instrument:0\"/><ObjectiveSettings ID=\"Objective:0:0\"/>",
            )
        });
    format!(
        "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\
         <OME xmlns=\"http://www.openmicroscopy.org/Schemas/OME/2016-06\" \
         xmlns:xsi=\"http://www.w3.org/2001/XMLSchema-instance\" \
         xsi:schemaLocation=\"http://www.openmicroscopy.org/Schemas/OME/2016-06 \
         http://www.openmicroscopy.org/Schemas/OME/2016-06/ome.xsd\">{instrument}\
         <Image ID=\"Image:0\">{settings}<Pixels ID=\"Pixels:0\" DimensionOrder=\"XYCZT\" Type=\"{kind}\" \
         SizeX=\"{width}\" SizeY=\"{height}\" SizeC=\"{channels}\" SizeZ=\"1\" SizeT=\"1\"{size}>\
         <Channel ID=\"Channel:0:0\" SamplesPerPixel=\"{channels}\"/><TiffData IFD=\"0\" PlaneCount=\"1\"/>\
         </Pixels></Image></OME>"
    )
}

// Reads a SEG or a parametric map with the Cornerstone adapters, as OHIF does, and prints what they make of it.
// Arguments: the object, then the images of the series in the order of a volume.
import { readFileSync } from 'node:fs'
import { adaptersPMAP, adaptersSEG } from '@cornerstonejs/adapters'
import { metaData } from '@cornerstonejs/core'
import dcmjs from 'dcmjs'

const bytes = path => new Uint8Array(readFileSync(path)).buffer
const natural = path => dcmjs.data.DicomMetaDictionary.naturalizeDataset(dcmjs.data.DicomMessage.readFile(bytes(path)).dict)
const [object, ...paths] = process.argv.slice(2)
const images = new Map(paths.map(path => [`file:${path}`, natural(path)]))

function provide (type, id) {
  const image = images.get(id)
  if (!image) return undefined
  const turned = image.ImageOrientationPatient
  const modules = {
    instance: image,
    generalSeriesModule: { seriesInstanceUID: image.SeriesInstanceUID, modality: image.Modality },
    generalImageModule: { sopInstanceUID: image.SOPInstanceUID },
    sopCommonModule: { sopInstanceUID: image.SOPInstanceUID, sopClassUID: image.SOPClassUID },
    imagePlaneModule: {
      frameOfReferenceUID: image.FrameOfReferenceUID, rows: image.Rows, columns: image.Columns,
      imagePositionPatient: image.ImagePositionPatient, imageOrientationPatient: turned,
      rowCosines: turned.slice(0, 3), columnCosines: turned.slice(3), pixelSpacing: image.PixelSpacing,
      rowPixelSpacing: image.PixelSpacing[0], columnPixelSpacing: image.PixelSpacing[1]
    },
    imagePixelModule: {
      samplesPerPixel: 1, photometricInterpretation: 'MONOCHROME2', rows: image.Rows, columns: image.Columns,
      bitsAllocated: 16, bitsStored: 16, highBit: 15, pixelRepresentation: 1
    }
  }
  return modules[type]
}

// segment: {slice: [places of its pixels]}
function places (labelmaps) {
  const found = {}
  for (const layer of labelmaps) {
    layer.forEach((image, slice) => image.voxelManager.getScalarData().forEach((segment, place) => {
      if (segment) ((found[segment] ??= {})[slice] ??= []).push(place)
    }))
  }
  return found
}

metaData.addProvider(provide)
const ids = [...images.keys()]
const provider = { get: provide }

async function read () {
  if (natural(object).Modality !== 'SEG') {
    const { pixelData } = await adaptersPMAP.Cornerstone3D.ParametricMap.generateToolState(ids, bytes(object), provider)
    return { values: [...pixelData] }
  }
  const options = { metadataProvider: provider }
  const made = await adaptersSEG.Cornerstone3D.Segmentation.createFromDICOMSegBuffer(ids, bytes(object), options)
  const labels = made.segMetadata.data.map(segment => segment?.SegmentLabel ?? null)
  return { labels, segments: places(made.labelMapImages) }
}

read().then(said => process.stdout.write(`RESULT${JSON.stringify(said)}`, () => process.exit()))

import { XMLParser } from 'fast-xml-parser';
import { s3Errors } from './s3-error.js';

const NAMESPACE = 'http://s3.amazonaws.com/doc/2006-03-01/';

/** Content of an element: text, elements by name, or a list of either for an element that repeats. */
export type XmlContent = string | number | boolean | null | undefined | XmlContent[] | { [name: string]: XmlContent };

/** Text as it stands in XML. Characters that XML cannot hold at all become U+FFFD, as parsers would refuse the whole list else. */
export function escapeXml(text: string): string {
  return text
    .replace(/[^\t\n\r\u0020-\ufffd]/g, '\ufffd')
    .replace(/[<>&"'\r\n\t]/g, (character) => `&#${character.charCodeAt(0)};`);
}

function render(name: string, content: XmlContent): string {
  if (content === undefined || content === null) return '';
  if (Array.isArray(content)) return content.map((item) => render(name, item)).join('');
  const inner =
    typeof content === 'object'
      ? Object.entries(content)
          .map(([child, value]) => render(child, value))
          .join('')
      : escapeXml(String(content));
  return `<${name}>${inner}</${name}>`;
}

/** An XML document with one root element of the S3 namespace. Errors have none: boto3 finds no code in one that has. */
export function xmlDocument(root: string, content: { [name: string]: XmlContent }): Buffer {
  const attribute = root === 'Error' ? '' : ` xmlns="${NAMESPACE}"`;
  const body = render(root, content).replace(`<${root}>`, `<${root}${attribute}>`);
  return Buffer.from(`<?xml version="1.0" encoding="UTF-8"?>\n${body}`);
}

const parser = new XMLParser({
  ignoreAttributes: true,
  parseTagValue: false,
  trimValues: false,
  processEntities: true,
  htmlEntities: true,
  isArray: (name) => name === 'Object' || name === 'Part',
});

/** The content of the root element of a request body. */
export function parseXml(text: string, root: string): Record<string, unknown> {
  // Requests of S3 have no document types: their entities could only do harm.
  if (text.includes('<!DOCTYPE')) throw s3Errors.malformedXml();
  try {
    const value = (parser.parse(text, true) as Record<string, unknown>)[root];
    if (typeof value !== 'object' || value === null) throw s3Errors.malformedXml();
    return value as Record<string, unknown>;
  } catch {
    throw s3Errors.malformedXml();
  }
}

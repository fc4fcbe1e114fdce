import type { JobProgress } from '../../protocol/job-report.js';
import { clip } from '../tellable-reason.js';
import { withoutCredentials } from '../without-credentials.js';

/** A record of KIWI-NG's log: level, time where it has one, text. */
const RECORD = /^\[ (DEBUG|INFO|WARNING|ERROR)\s*\]: (?:\d\d:\d\d:\d\d \| )?(.*)$/;
/** Records may follow a progress bar on its line. */
const BETWEEN_RECORDS = /\r|(?=\[ (?:DEBUG|INFO|WARNING|ERROR)\s*\]: )/;
const BAR = /^Processing: \[[# ]*\] (\d+)%/;
/** A place where a description is not as the schema wants it, as libxml2 tells it. */
const SCHEMA_ERROR = /:(\d+):\d+:ERROR:\w+:\w+: (.*)$/;
/** Records that begin a stage of a build. */
const STAGES = [
  'Preparing new root system',
  'Setting up repository',
  'Installing bootstrap packages',
  'Installing system (chroot)',
  'Calling config.sh script',
  'Calling config-overlay.sh script',
  'Calling images.sh script',
  'Creating system image',
  'Creating XZ compressed tar archive',
];
/** Places that a reason names at most, and its length. */
const MAX_PLACES = 3;
const MAX_REASON = 1500;

/** Reads what KIWI-NG prints: how far it is, and in the end why it failed. */
export class KiwiOutput {
  private stage = '';
  private readonly error: string[] = [];
  private readonly places: string[] = [];
  private inError = false;

  /**
   * Takes a line.
   * @returns how far the build is, where the line tells that
   */
  add(line: string, stream: 'stdout' | 'stderr'): JobProgress | null {
    const pieces = line.split(BETWEEN_RECORDS);
    const told = pieces.map((piece) => this.addPiece(piece, stream)).filter((progress) => progress !== null);
    return told.at(-1) ?? null;
  }

  private addPiece(piece: string, stream: 'stdout' | 'stderr'): JobProgress | null {
    const [, level, text = ''] = RECORD.exec(piece) ?? [];
    if (stream === 'stderr') this.addError(level, level ? text : piece);
    const schemaError = SCHEMA_ERROR.exec(piece);
    if (schemaError) this.places.push(`near line ${schemaError[1]}: ${schemaError[2]}`);
    return level === 'INFO' ? this.progressOf(text) : null;
  }

  /** The last error counts; what follows it without a level belongs to it. */
  private addError(level: string | undefined, text: string): void {
    if (level) this.inError = level === 'ERROR';
    if (level === 'ERROR') this.error.length = 0;
    if (this.inError) this.error.push(text.trim());
  }

  private progressOf(text: string): JobProgress | null {
    const percent = BAR.exec(text)?.[1];
    if (percent) return { stage: this.stage, done: Number(percent), total: 100 };
    const stage = STAGES.find((name) => text.startsWith(name));
    if (!stage || stage === this.stage) return null;
    this.stage = stage;
    return { stage, done: null, total: null };
  }

  /**
   * Why the build failed, in KIWI-NG's words; null where it did not say.
   * @param hidden beginnings of paths that mean nothing to users
   */
  reason(hidden: readonly string[]): string | null {
    const lines = this.error.filter((line) => line !== '' && line !== ':');
    // An error that KIWI-NG did not expect is told as a traceback, whose last line says what happened.
    const told = lines[0]?.startsWith('Unexpected error') ? lines.slice(-1) : lines;
    if (!told.length) return null;
    const places = told[0]!.startsWith('KiwiDescriptionInvalid') ? this.places.slice(0, MAX_PLACES) : [];
    const whole = [told.join(' '), ...(places.length ? [`(${places.join('; ')})`] : [])].join(' ');
    const visible = hidden.reduce((text, prefix) => text.replaceAll(prefix, ''), withoutCredentials(whole));
    return clip(visible, MAX_REASON);
  }
}

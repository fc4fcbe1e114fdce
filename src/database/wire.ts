import { applyDecorators } from '@nestjs/common';
import { ApiProperty, type ApiPropertyOptions } from '@nestjs/swagger';
import { Exclude, Expose, Transform } from 'class-transformer';

/** Group of the members that only v3 answers have. */
export const V3_ONLY = 'v3';

/** Which answers tell of a member: all, those of version 3, those about deleted records, or none. */
export type Told = 'always' | 'v3' | 'deleted' | 'never';

const TOLD = Symbol('told');

function told(when: Told): PropertyDecorator {
  return (prototype, property) => Reflect.defineMetadata(TOLD, when, prototype, property);
}

/** Which answers tell of a member of an entity. */
export function toldOf(entity: { prototype: object }, property: string): Told {
  return (Reflect.getMetadata(TOLD, entity.prototype, property) as Told | undefined) ?? 'always';
}

/** A member of which only version 3 tells. */
export function OnlyInV3(): PropertyDecorator {
  return applyDecorators(Expose({ groups: [V3_ONLY], toPlainOnly: true }), told('v3')) as PropertyDecorator;
}

/** A column that is ours: no answer tells of it. */
export function Hidden(): PropertyDecorator {
  return applyDecorators(Exclude({ toPlainOnly: true }), told('never')) as PropertyDecorator;
}

/** The time of deletion, of which only answers about deleted records tell. */
export function DeletedTime(): PropertyDecorator {
  return applyDecorators(
    Exclude({ toPlainOnly: true }),
    told('deleted'),
    Time({ required: false, description: 'When the record was deleted; only in answers of /v3/deleted.' }),
  ) as PropertyDecorator;
}

/** UTC with microseconds and offset, as the original writes times: `2018-11-21T17:19:07.830000+00:00`. */
export function wireTime(time: Date): string {
  return time.toISOString().replace('Z', '000+00:00');
}

/** A time that the service sets. */
export function Time(options: ApiPropertyOptions = {}): PropertyDecorator {
  return applyDecorators(
    Transform(({ value }: { value: unknown }) => (value instanceof Date ? wireTime(value) : value), {
      toPlainOnly: true,
    }),
    ApiProperty({
      type: String,
      format: 'date-time',
      readOnly: true,
      example: '2018-11-21T17:19:07.830000+00:00',
      ...options,
    } as ApiPropertyOptions),
  );
}

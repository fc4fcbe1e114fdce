import { applyDecorators } from '@nestjs/common';
import { ApiProperty, type ApiPropertyOptions } from '@nestjs/swagger';
import { Exclude, Expose, Transform } from 'class-transformer';

/** Group of the members that only v3 answers have. */
export const V3_ONLY = 'v3';

/** A member of which only version 3 tells. */
export function OnlyInV3(): PropertyDecorator {
  return Expose({ groups: [V3_ONLY], toPlainOnly: true });
}

/** A column that is ours: no answer tells of it. */
export function Hidden(): PropertyDecorator {
  return Exclude({ toPlainOnly: true });
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

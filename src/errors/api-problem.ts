import { applyDecorators } from '@nestjs/common';
import { ApiProperty, ApiResponse, getSchemaPath, ApiExtraModels } from '@nestjs/swagger';
import { STATUS_CODES } from 'node:http';

/** How a problem looks on the wire (RFC 7807); for the document only. */
export class ProblemDocument {
  @ApiProperty({ example: 422 })
  status: number;
  @ApiProperty({ example: 'Unprocessable Entity' })
  title: string;
  @ApiProperty({
    description: 'What is wrong and what to change.',
    example: 'The input is not valid. name: Must not be blank.',
  })
  detail: string;
  @ApiProperty({ description: 'Name of the problem, for programs.', example: 'invalid-input' })
  code: string;
  @ApiProperty({
    required: false,
    type: Object,
    additionalProperties: true,
    description: 'Messages by member; those of nested objects are nested by member name and index.',
    example: { name: ['Must not be blank.'] },
  })
  errors?: Record<string, unknown>;
}

/** Documents the problems that a route can answer with. */
export function ApiProblems(...statuses: number[]): MethodDecorator & ClassDecorator {
  const content = { 'application/problem+json': { schema: { $ref: getSchemaPath(ProblemDocument) } } };
  return applyDecorators(
    ApiExtraModels(ProblemDocument),
    ...statuses.map((status) => ApiResponse({ status, description: STATUS_CODES[status]!, content })),
  );
}

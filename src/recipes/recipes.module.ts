import { Module } from '@nestjs/common';
import { TypeOrmModule } from '@nestjs/typeorm';
import { DeletedRecipesController } from './deleted-recipes.controller.js';
import { RecipeArchives } from './recipe-archives.js';
import { Recipe } from './recipe.entity.js';
import { RecipesController } from './recipes.controller.js';
import { RecipesService } from './recipes.service.js';

@Module({
  imports: [TypeOrmModule.forFeature([Recipe])],
  controllers: [RecipesController, DeletedRecipesController],
  providers: [RecipesService, RecipeArchives],
  exports: [RecipesService],
})
export class RecipesModule {}
